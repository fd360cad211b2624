"""Where each service is reached and how to sign in.

An :class:`Endpoint` has the fields of an Airflow connection. The platform's own come from
:mod:`include.platform.settings`; Airflow's database is seeded with them, and tasks read them back from there. An external
service's is the connection that ``SHUDL_EXTERNAL`` names, for tasks and for the command line alike; it is asked for by the
name of the connection that it stands for (``shudl_kafka``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from include.platform.catalog import LOCAL, Service, docker_services, external_to
from include.platform.settings import DOCKER_CA, Settings, SettingsError, settings


@dataclass(frozen=True)
class Endpoint:
    """One service or database. ``conn_type`` is Airflow's; ``password`` and ``extra`` stay out of its repr."""

    conn_id: str
    conn_type: str
    host: str
    port: int
    login: str = ""
    password: str = field(default="", repr=False)
    schema: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def address(self) -> str:
        return self.extra.get("bootstrap.servers", "") if self.conn_type == "kafka" else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.extra.get('scheme', 'http')}://{self.address}"

    @property
    def conninfo(self) -> str:
        """libpq connection string. Raises ValueError for anything but a PostgreSQL endpoint."""
        if self.conn_type != "postgres":
            raise ValueError(f"connection {self.conn_id} is of type {self.conn_type}, not postgres")
        from psycopg.conninfo import make_conninfo

        tls = {name: self.extra[name] for name in ("sslmode", "sslrootcert") if name in self.extra}
        return make_conninfo(
            host=self.host, port=self.port, user=self.login, password=self.password, dbname=self.schema, connect_timeout=10, **tls
        )


Endpoints = Mapping[str, Endpoint]
"""Endpoints by connection id."""


def redirected(s: Settings = settings) -> dict[str, str]:
    """Connection id of a service → the one that stands for it, because the service is external."""
    found = external_to(s)
    return {svc.conn_id: found[svc.name] for svc in (docker_services(s.ha) if s.docker else LOCAL) if found.get(svc.name)}


def local_endpoints(s: Settings = settings) -> Endpoints:
    """Every endpoint for who is no task of Airflow's: those of :func:`own_endpoints`, and those of external services, which
    are read from Airflow's database when they are asked for.
    """
    instead = redirected(s)
    return WithExternal(own_endpoints(s), instead, s) if instead else own_endpoints(s)


class WithExternal(Mapping[str, Endpoint]):
    """The platform's endpoints, some of which are an Airflow connection's."""

    def __init__(self, own: Mapping[str, Endpoint], instead: Mapping[str, str], s: Settings) -> None:
        self._own, self._instead, self._settings = own, instead, s
        self._read: dict[str, Endpoint] = {}

    def __getitem__(self, conn_id: str) -> Endpoint:
        if conn_id not in self._instead:
            return self._own[conn_id]
        if conn_id not in self._read:
            from include.platform.connections import read

            self._read[conn_id] = read(self._instead[conn_id], self._settings)
        return self._read[conn_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._own)

    def __len__(self) -> int:
        return len(self._own)


def own_endpoints(s: Settings = settings) -> dict[str, Endpoint]:
    """The endpoints of the platform that this checkout runs, and the sources that were added, by connection id."""

    def endpoint(conn_id: str, conn_type: str, port: str, extra: Mapping[str, Any] | None = None, **fields: Any) -> Endpoint:
        scheme = {"scheme": "https"} if s.scheme(port) == "https" else {}
        return Endpoint(conn_id, conn_type, *s.address(port), extra={**scheme, **(extra or {})}, **fields)

    database = {"sslmode": "verify-full", "sslrootcert": str(DOCKER_CA)} if s.docker else {}
    made = [
        endpoint(
            "flights_db",
            "postgres",
            "postgres",
            database,
            login="flights",
            password=s.secret("postgres_flights"),
            schema="flights",
        ),
        endpoint("shudl_s3", "generic", "s3", login=s.secret("s3_access_key"), password=s.secret("s3_secret_key")),
        endpoint("shudl_nessie", "http", "nessie"),
        endpoint("shudl_kafka", "kafka", "kafka", _kafka(s)),
        endpoint("shudl_registry", "http", "registry"),
        endpoint(
            "shudl_connect", "http", "connect", {"secrets_dir": str(s.connect_secrets), "mask_secret": s.secret("mask_salt")}
        ),
        endpoint("shudl_flink", "http", "flink", {"checkpoint_dir": str(s.data("flink") / "checkpoints")}),
        endpoint("shudl_flink_gateway", "http", "flink_gateway"),
        endpoint("shudl_spark", "spark", "spark", {"web_ui": s.url("spark_ui")}, password=s.secret("spark_auth")),
        endpoint("shudl_trino", "trino", "trino", login="shudl", password=s.secret("trino") if s.docker else ""),
        endpoint("shudl_clickhouse", "generic", "clickhouse", login="shudl", password=s.secret("clickhouse")),
    ]
    if s.docker:
        known = {e.conn_id for e in made}
        made += [
            endpoint(svc.conn_id, "http", svc.port, _members(svc), **_admin(svc.name, s))
            for svc in docker_services(s.ha)
            if svc.conn_id not in known
        ]
    return {e.conn_id: e for e in (*made, *_added_sources(s))}


def _members(svc: Service) -> dict[str, str]:
    return {"members": ",".join(svc.containers)} if svc.containers else {}


def _admin(name: str, s: Settings) -> dict[str, str]:
    """Who may administer the service, or its token, where ShuDL signs in with that."""
    login, secret = {
        "keycloak": ("admin", "keycloak_admin"),
        "grafana": ("admin", "grafana_admin"),
        "kafka-ui": ("admin", "kafka_ui_login"),
        "patroni": ("patroni", "patroni_rest"),
        "nessie-proxy": ("", "nessie_token"),
    }.get(name, ("", ""))
    return {"login": login, "password": s.secret(secret)} if secret else {}


def _kafka(s: Settings) -> dict[str, str]:
    """librdkafka's settings."""
    host, port = s.address("kafka")
    if not s.docker:
        return {"bootstrap.servers": f"{host}:{port}"}
    kafka = next(svc for svc in docker_services(s.ha) if svc.name == "kafka")
    servers = {"bootstrap.servers": ",".join(f"{broker}:{port}" for broker in kafka.containers or (host,))}
    return {
        **servers,
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "airflow",
        "sasl.password": s.secret("kafka_airflow"),
        "ssl.ca.location": str(DOCKER_CA),
    }


def keep(endpoint: Endpoint, s: Settings = settings) -> None:
    """Write a source's endpoint to a file (mode 0600) from which :func:`own_endpoints` reads it."""
    path = s.source_secrets / f"{endpoint.conn_id}.json"
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(asdict(endpoint), file, indent=2)
    fresh.replace(path)


def _added_sources(s: Settings) -> list[Endpoint]:
    """The databases that ``./shudl source add`` was told of. Raises :class:`SettingsError`."""
    found = []
    for path in sorted((s.home / "secrets" / "sources").glob("*.json")):
        try:
            found.append(Endpoint(**json.loads(path.read_text())))
        except (OSError, ValueError, TypeError) as error:
            raise SettingsError(f"{path}: {error}; remove it and its pipeline file, and run ./shudl source add again") from None
    return found
