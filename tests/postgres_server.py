"""A throw-away PostgreSQL for tests: import the fixtures ``postgres_server`` and ``postgres_database`` where needed.

The server is the platform's own entrypoint on a free port, in a temporary folder. With ``SHUDL_TEST_PG_CONNINFO`` (a
role that may create databases) that server is used instead. Each ``postgres_database`` is a new one and is dropped.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from include.platform.settings import ROOT, settings

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30
ROLE = "tester"


class PostgresServer:
    """A server that answers; ``admin`` may create databases, ``user`` owns those made by :meth:`database`."""

    def __init__(self, admin: str, user: str, restart: Callable[[], None] | None = None) -> None:
        self.admin, self.user, self._restart = admin, user, restart

    def restart(self) -> None:
        """Stop and start the server, for settings that are read at its start. Not with ``SHUDL_TEST_PG_CONNINFO``."""
        assert self._restart, "this server is not ours to restart"
        self._restart()

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """A new database as a connection string, empty or a copy of ``template`` (to which nobody may be connected);
        dropped at the end, whoever is still connected."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self.user) as conn:
            owner = conn.info.user
        with psycopg.connect(self.admin, autocommit=True) as conn:
            create = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}")
            conn.execute(create.format(*map(sql.Identifier, (name, owner, template))))
        try:
            yield make_conninfo(self.user, dbname=name)
        finally:
            with psycopg.connect(self.admin, autocommit=True) as conn:
                conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((settings.host, 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(conninfo: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            psycopg.connect(conninfo, connect_timeout=2).close()
            return
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {error}\n{log.read_text()[-4000:]}") from error
            time.sleep(0.1)


@contextmanager
def throw_away_server() -> Iterator[PostgresServer]:
    programs = settings.engines / "postgres" / "bin"
    if not (programs / "postgres").exists():
        raise FileNotFoundError(f"{programs}/postgres: run `make setup`, or set SHUDL_TEST_PG_CONNINFO")
    folder = Path(tempfile.mkdtemp(prefix="shudl-test-postgres-", dir="/tmp"))
    folder.chmod(0o711)
    port, passwords = _free_port(), {}
    for role in ("postgres", ROLE):
        passwords[role] = secrets.token_hex(16)
        (folder / role).touch(0o600)
        (folder / role).write_text(passwords[role])
    environment = os.environ | {
        "POSTGRES_BIN": str(programs),
        "POSTGRES_HOST": settings.host,
        "POSTGRES_PORT": str(port),
        "POSTGRES_DATA_DIR": str(folder / "data"),
        "POSTGRES_SUPERUSER_PASSWORD_FILE": str(folder / "postgres"),
        "POSTGRES_USER": ROLE,
        "POSTGRES_DB": ROLE,
        "POSTGRES_PASSWORD_FILE": str(folder / ROLE),
        "POSTGRES_SHARED_BUFFERS": "64MB",
        "RUN_DIR": str(folder / "run"),
    }
    (folder / "data").mkdir(0o700)
    log = folder / "log"
    admin, user = (
        make_conninfo("", host=settings.host, port=port, user=role, password=password, dbname=database)
        for (role, password), database in zip(passwords.items(), ("postgres", ROLE), strict=True)
    )
    running: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        with log.open("ab") as output:
            process = subprocess.Popen(
                ["bash", ROOT / "docker" / "services" / "postgres" / "entrypoint.sh"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        running.append(process)
        _wait_until_ready(admin, process, log)

    def stop() -> None:
        process = running.pop()
        process.send_signal(2)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT_S)

    def restart() -> None:
        stop()
        start()

    try:
        start()
        yield PostgresServer(admin, user, restart)
    finally:
        if running:
            stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    if conninfo := os.environ.get("SHUDL_TEST_PG_CONNINFO"):
        yield PostgresServer(conninfo, conninfo)
    else:
        with throw_away_server() as server:
            yield server


@pytest.fixture
def postgres_database(postgres_server: PostgresServer) -> Iterator[str]:
    """The connection string of a new, empty database."""
    with postgres_server.database() as conninfo:
        yield conninfo
