"""The PostgreSQL cluster of docker/compose.yaml, with what watches over it, as a Compose project of its own.

Each wait has a deadline, and fails with what was there instead.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from include.drills.writer import Table, Writer
from include.platform.compose import certificates, secrets
from include.platform.compose.files import User
from include.platform.compose.model import Compose
from include.platform.settings import ROOT
from tests.compose_platform import VERSION, keep_logs

SERVICES = ("etcd1", "etcd2", "etcd3", "patroni1", "patroni2", "haproxy", "docker-filter", "fencer")
IMAGES = ("etcd", "patroni", "haproxy")
START_S = 240
MARKS = Table("INSERT INTO public.marks VALUES (%s)", "SELECT id FROM public.marks", "DELETE FROM public.marks")


class Cluster:
    """``folder`` gets copies of docker/compose.yaml and secrets of its own; ``address`` is where HAProxy is published."""

    def __init__(self, project: str, address: str, folder: Path, **variables: str) -> None:
        self.project, self.address, self.folder = project, address, folder
        self.environment = {**os.environ, **variables, "VERSION": VERSION, "SHUDL_BIND": address}
        self.environment["DOCKER_GID"] = str(Path(self.environment.get("DOCKER_SOCKET", "/var/run/docker.sock")).stat().st_gid)

    # ── the project ──

    def docker(self, *arguments: str, timeout_s: float = 60) -> str:
        done = subprocess.run(
            ["docker", *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def compose(self, *arguments: str, timeout_s: float = 60) -> str:
        return self.docker(
            "compose", "-p", self.project, "-f", str(self.folder / "compose.yaml"), *arguments, timeout_s=timeout_s
        )

    @contextmanager
    def running(self) -> Iterator[Cluster]:
        """Up and whole within the block; removed after it, volumes too."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        shutil.copy(ROOT / "docker" / "compose.yaml", self.folder)
        compose, me = Compose.read(self.folder / "compose.yaml"), User(os.getuid(), os.getgid())
        secrets.make(self.folder / "secrets", compose, me)
        certificates.make(self.folder / "certificates", compose, me)
        try:
            self.compose("up", "-d", "--wait", "--wait-timeout", str(START_S), *SERVICES, timeout_s=START_S + 60)
            self.is_whole(within_s=90)
            with psycopg.connect(self.conninfo) as connection:
                connection.execute("CREATE TABLE public.marks (id text PRIMARY KEY)")
            yield self
        finally:
            subprocess.run(
                ["docker", "compose", "-p", self.project, "-f", str(self.folder / "compose.yaml"), "down", "-v", "-t", "1"],
                env=self.environment,
                capture_output=True,
                timeout=120,
            )

    def keep_logs(self, folder: Path) -> list[Path]:
        return keep_logs(self.project, folder)

    def container(self, service: str) -> str:
        return f"{self.project}-{service}-1"

    def state(self, service: str) -> dict[str, Any]:
        return json.loads(self.docker("inspect", "--format", "{{json .State}}", self.container(service)))

    def inside(self, service: str, *command: str, timeout_s: float = 60) -> str:
        return self.docker("exec", self.container(service), *command, timeout_s=timeout_s)

    # ── what is there ──

    @property
    def conninfo(self) -> str:
        """Of the primary, through HAProxy."""
        return make_conninfo(
            host="localhost",
            hostaddr=self.address,
            port=15000,
            user="flights",
            password=(self.folder / "secrets" / "postgres_flights").read_text().strip(),
            dbname="flights",
            sslmode="verify-full",
            sslrootcert=str(self.folder / "certificates" / "ca.crt"),
            connect_timeout=5,
        )

    def members(self) -> dict[str, tuple[str, str]]:
        """Member → its role and state, as Patroni says; empty when nobody does."""
        for member in ("patroni1", "patroni2"):
            ask = ("curl", "-s", "-m", "3", "--cacert", "/run/secrets/ca.crt", f"https://{member}:8008/cluster")
            done = subprocess.run(["docker", "exec", self.container("fencer"), *ask], capture_output=True, text=True, timeout=30)
            if done.stdout:
                return {one["name"]: (one["role"], one["state"]) for one in json.loads(done.stdout)["members"]}
        return {}

    def primary(self) -> str:
        leaders = [name for name, (role, state) in self.members().items() if (role, state) == ("leader", "running")]
        return leaders[0] if leaders else ""

    def standby_of(self, primary: str) -> str:
        return next(member for member in ("patroni1", "patroni2") if member != primary)

    def sql(self, member: str, statement: str, timeout_s: float = 30) -> str:
        """As PostgreSQL's superuser, on the member itself."""
        return self.inside(
            member, "psql", "-h", "/run/shudl", "-U", "postgres", "-d", "flights", "-XAtc", statement, timeout_s=timeout_s
        ).strip()

    def leader_key(self) -> dict[str, str]:
        """As etcd has it: ``mod_revision`` and ``lease`` tell one reign from another."""
        read = "import fencer, json, os, ssl; c = ssl.create_default_context(cafile=os.environ['TLS_CA_FILE']); "
        read += "c.load_cert_chain(os.environ['TLS_CERT_FILE'], os.environ['TLS_KEY_FILE']); "
        read += "r = fencer.Etcd(['etcd1', 'etcd2', 'etcd3'], c).cluster().reign; print(json.dumps(vars(r) if r else {}))"
        return json.loads(self.in_fencer(read))

    def in_fencer(self, code: str) -> str:
        path = "PYTHONPATH=/opt/shudl/docker/services/fencer"
        return self.docker("exec", "-e", path, self.container("fencer"), "/opt/patroni/bin/python", "-c", code)

    def fencer(self, metric: str) -> float:
        text = self.inside("fencer", "curl", "-fsS", "http://127.0.0.1:9405/metrics")
        return float(dict(line.split() for line in text.splitlines())[f"fencer_{metric}"])

    # ── waits ──

    @staticmethod
    def wait(what: str, within_s: float, condition: Callable[[], Any], found: Callable[[], Any] = lambda: "") -> Any:
        """What ``condition()`` is once it is true."""
        deadline = time.monotonic() + within_s
        while not (value := condition()):
            if time.monotonic() > deadline:
                pytest.fail(f"not within {within_s:.0f} s: {what}; there is {found()}", pytrace=False)
            time.sleep(0.3)
        return value

    def is_whole(self, within_s: float) -> None:
        """Every container runs, one member is the primary and the other its synchronous standby."""

        def whole() -> bool:
            roles = {role for role, state in self.members().values() if state in ("running", "streaming")}
            return roles == {"leader", "sync_standby"}

        self.wait("a primary with a synchronous standby", within_s, whole, self.members)

    def has_another_primary(self, than: str, within_s: float) -> str:
        return self.wait(f"a primary other than {than}", within_s, lambda: (p := self.primary()) != than and p, self.members)

    def writes(self) -> Writer:
        return Writer(self.conninfo, MARKS)

    def goes_on(self, writer: Writer, within_s: float, more: int = 20) -> None:
        """``more`` rows are acknowledged from now on."""
        before = len(writer.acknowledged)
        self.wait("rows are acknowledged", within_s, lambda: len(writer.acknowledged) >= before + more, self.members)
