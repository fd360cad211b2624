"""Where this checkout keeps its things, which ports it uses and where its secrets are.

One object, :data:`settings`, read from the environment once:

``SHUDL_RUNTIME``          ``local`` (processes of this machine, the default) or ``docker`` (containers, docker/compose.yaml)
``SHUDL_HOME``             folder of everything that ShuDL installs and writes (default ``<checkout>/.shudl``)
``SHUDL_INSTALL``          folder of the environments and engines, when several platforms share them (default ``SHUDL_HOME``)
``SHUDL_PIPELINES``        folder of the pipeline files (default ``<checkout>/include/pipelines``)
``SHUDL_EXTERNAL``         services that are somebody else's, each with its Airflow connection: ``kafka=company_kafka trino=…``
``SHUDL_PORT_BASE``        first port of the block of 100 that the services use (default 21000)
``SHUDL_PROFILES``         in docker: the profiles that Compose was given, separated by commas
``SHUDL_SPARK_JAVA_HOME``  home of a Java that Spark is to run on instead of the one that is installed with the engines
"""

from __future__ import annotations

import os
import re
import secrets as random_secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PORT_OFFSETS = {
    "airflow": 0,
    "supervisor": 1,
    "airflow_db": 2,
    "postgres": 10,
    "s3": 20,
    "s3_master": 21,
    "s3_master_grpc": 22,
    "s3_volume": 23,
    "s3_volume_grpc": 24,
    "s3_filer": 25,
    "s3_filer_grpc": 26,
    "s3_grpc": 27,
    "nessie": 30,
    "nessie_management": 31,
    "kafka": 40,
    "kafka_controller": 41,
    "registry": 50,
    "registry_management": 51,
    "connect": 60,
    "flink": 70,
    "flink_jobmanager_rpc": 71,
    "flink_taskmanager_rpc": 72,
    "flink_taskmanager_data": 73,
    "flink_blob": 74,
    "flink_metrics": 75,
    "flink_taskmanager_metrics": 76,
    "flink_gateway": 77,
    "trino": 80,
    "spark": 85,
    "spark_ui": 86,
    "spark_worker": 87,
    "spark_worker_ui": 88,
    "clickhouse": 90,
}
"""Offset of every port in the block; the block's first port is ``SHUDL_PORT_BASE``."""

DOCKER_ADDRESSES = {
    "airflow": ("airflow-proxy", 8280),
    "airflow_db": ("airflow-db", 5432),
    "valkey": ("valkey", 6379),
    "etcd": ("etcd1", 2379),
    "patroni": ("patroni1", 8008),
    "postgres": ("haproxy", 15000),
    "postgres_read": ("haproxy", 15001),
    "haproxy_stats": ("haproxy", 8404),
    "s3": ("s3", 9000),
    "nessie": ("nessie", 19120),
    "nessie_access": ("nessie-access", 19120),
    "nessie_proxy": ("nessie-proxy", 19120),
    "kafka": ("kafka", 9092),
    "registry": ("registry", 8085),
    "connect": ("connect", 8083),
    "kafka_ui": ("kafka-ui", 8090),
    "flink": ("flink-jobmanager", 8081),
    "flink_gateway": ("flink-sql-gateway", 8084),
    "spark": ("spark-master", 7077),
    "spark_ui": ("spark-master", 8088),
    "trino": ("trino", 8080),
    "clickhouse": ("clickhouse", 8123),
    "keycloak": ("keycloak", 8543),
    "prometheus": ("prometheus", 9090),
    "alertmanager": ("alertmanager", 9095),
    "grafana": ("grafana", 3000),
    "loki": ("loki", 3100),
    "alloy": ("alloy", 12345),
    "dbt_docs": ("dbt-docs", 8580),
}
"""Container and port of what containers reach of each other. ``docker/compose.yaml`` is held to it by a test."""

DOCKER_TLS = frozenset(
    (
        *("airflow", "valkey", "etcd", "patroni", "s3", "nessie", "nessie_access", "nessie_proxy", "registry", "connect"),
        *("flink", "flink_gateway", "trino", "clickhouse", "keycloak", "grafana", "dbt_docs"),
    )
)
"""What of it speaks HTTPS. PostgreSQL and Kafka have TLS in their own protocols."""

DOCKER_SECRETS = Path("/run/secrets")
DOCKER_CA = DOCKER_SECRETS / "ca.crt"
RUNTIMES = ("local", "docker")


class SettingsError(ValueError):
    """A setting from the environment that cannot be used; the text names it and the way out."""


EXTERNAL_PAIR = re.compile(r"([a-z0-9-]+)=([A-Za-z0-9_.-]+)")


def external_pairs(text: str) -> dict[str, str]:
    """Service → connection, of ``SHUDL_EXTERNAL``; spaces or commas between them. Raises :class:`SettingsError`."""
    found: dict[str, str] = {}
    for word in text.replace(",", " ").split():
        if not (pair := EXTERNAL_PAIR.fullmatch(word)):
            raise SettingsError(f"SHUDL_EXTERNAL={text}: {word} is not service=connection, such as kafka=company_kafka")
        if found.setdefault(pair[1], pair[2]) != pair[2]:
            raise SettingsError(f"SHUDL_EXTERNAL={text}: {pair[1]} has two connections; leave one")
    return found


def _made(folder: Path, mode: int = 0o755) -> Path:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True, mode=mode)
    return folder


@dataclass(frozen=True)
class Settings:
    """Paths, ports and secrets of one checkout. Folders are made when first asked for."""

    home: Path
    port_base: int
    host: str = "127.0.0.1"
    """The name by which others reach what this process serves (Spark's drivers)."""
    runtime: str = "local"
    install: Path | None = None
    spark_java_home: Path | None = None
    pipelines: Path = ROOT / "include" / "pipelines"
    profiles: frozenset[str] = frozenset()
    external: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Service → Airflow connection, as told; :func:`include.platform.catalog.externals` says what follows."""

    @classmethod
    def from_env(cls) -> Settings:
        home = Path(os.environ.get("SHUDL_HOME") or ROOT / ".shudl").expanduser().absolute()
        install = Path(os.environ.get("SHUDL_INSTALL") or home).expanduser().absolute()
        pipelines = Path(os.environ.get("SHUDL_PIPELINES") or cls.pipelines).expanduser().absolute()
        raw = os.environ.get("SHUDL_PORT_BASE") or "21000"
        if not raw.isdigit() or not 1024 <= int(raw) <= 65435:
            raise SettingsError(f"SHUDL_PORT_BASE={raw}: must be a number from 1024 to 65435")
        java = os.environ.get("SHUDL_SPARK_JAVA_HOME")
        runtime = os.environ.get("SHUDL_RUNTIME") or "local"
        if runtime not in RUNTIMES:
            raise SettingsError(f"SHUDL_RUNTIME={runtime}: must be {' or '.join(RUNTIMES)}")
        return cls(
            home=home,
            port_base=int(raw),
            host=socket.gethostname() if runtime == "docker" else cls.host,
            runtime=runtime,
            install=install,
            pipelines=pipelines,
            profiles=frozenset(filter(None, os.environ.get("SHUDL_PROFILES", "").split(","))),
            spark_java_home=Path(java).expanduser().absolute() if java else None,
            external=external_pairs(os.environ.get("SHUDL_EXTERNAL") or ""),
        )

    @property
    def docker(self) -> bool:
        return self.runtime == "docker"

    @property
    def ha(self) -> bool:
        """Whether there is more than one of each service that can be several (Compose's profile ``ha``)."""
        return self.docker and "ha" in self.profiles

    @property
    def signs_in(self) -> bool:
        """Whether people sign in by Keycloak (Compose's profile ``access``, or ``full``)."""
        return self.docker and bool({"access", "full"} & self.profiles)

    @property
    def bind(self) -> str:
        """The address on which this process listens for others."""
        return "0.0.0.0" if self.docker else self.host

    def address(self, name: str) -> tuple[str, int]:
        """Host and TCP port of what is called ``name`` in :data:`PORT_OFFSETS`, or :data:`DOCKER_ADDRESSES`."""
        return DOCKER_ADDRESSES[name] if self.docker else (self.host, self.port_base + PORT_OFFSETS[name])

    def port(self, name: str) -> int:
        return self.address(name)[1]

    def scheme(self, name: str) -> str:
        return "https" if self.docker and name in DOCKER_TLS else "http"

    def url(self, name: str) -> str:
        host, port = self.address(name)
        return f"{self.scheme(name)}://{host}:{port}"

    def _folder(self, *parts: str, mode: int = 0o755) -> Path:
        return _made(self.home.joinpath(*parts), mode)

    @cached_property
    def installed(self) -> Path:
        """What the locks name, as :mod:`include.platform.engines` installs it."""
        return _made(self.install or self.home)

    @cached_property
    def envs(self) -> Path:
        """Python environments: ``envs/<name>/bin/python``."""
        return _made(self.installed / "envs")

    @cached_property
    def engines(self) -> Path:
        """Unpacked engines: ``engines/<name>``."""
        return _made(self.installed / "engines")

    @cached_property
    def logs(self) -> Path:
        return self._folder("logs")

    @cached_property
    def evidence(self) -> Path:
        """What runs proved, as JSON: ``evidence/<dag_id>/<run>.json``."""
        return self._folder("evidence")

    def data(self, service: str) -> Path:
        """The folder in which ``service`` keeps its state; survives restarts."""
        return self._folder("data", service, mode=0o700)

    def run(self, service: str) -> Path:
        """The folder of files rendered for ``service`` at each start."""
        return self._folder("run", service, mode=0o700)

    @cached_property
    def source_secrets(self) -> Path:
        """Connections of source databases that ``./shudl source add`` made, one JSON file each."""
        return self._folder("secrets", "sources", mode=0o700)

    @cached_property
    def connect_secrets(self) -> Path:
        """Passwords of source databases, one file each, that Kafka Connect reads."""
        return self._folder("secrets", "connect", mode=0o700)

    def python(self, env: str) -> Path:
        return self.envs / env / "bin" / "python"

    def secret_file(self, name: str) -> Path:
        """The file (mode 0600) that holds the secret ``name``; made with a random value at first use.

        In docker it is the container's, made by ``make secrets``. Raises :class:`SettingsError` where it has none.
        """
        if self.docker:
            path = DOCKER_SECRETS / name
            if not os.access(path, os.R_OK):
                raise SettingsError(f"{path} cannot be read: this container is not given the secret {name} (docker/compose.yaml)")
            return path
        path = self._folder("secrets", mode=0o700) / name
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return path
        with os.fdopen(fd, "w") as file:
            file.write(random_secrets.token_hex(20))
        return path

    def secret(self, name: str) -> str:
        return self.secret_file(name).read_text().strip()


settings = Settings.from_env()
