"""What is wrong with a source is told all at once, before anything changes; and a first pipeline file is right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from include.cdc.check import DEBEZIUM, SourceUnreachable, check, connect, findings
from include.cdc.pipelines import Pipeline, PipelineError, load
from include.cdc.reconcile import reconcile_database
from include.platform.endpoints import Endpoint
from include.platform.settings import ROOT, settings
from tests.ports import free_block
from tests.postgres_server import PostgresServer, postgres_database, postgres_server, throw_away_server  # noqa: F401

PASSWORD = "pa:ss/w@rd%'s"


def endpoint(conninfo: str, **changed: Any) -> dict[str, Endpoint]:
    parts = conninfo_to_dict(conninfo) | changed
    host, port, user, password, database = (parts[key] for key in ("host", "port", "user", "password", "dbname"))
    return {"shop_db": Endpoint("shop_db", "postgres", host, int(port), login=user, password=password, schema=database)}


def pipeline(*tables: str, **modes: str) -> Pipeline:
    named = {name: {} for name in tables} | {f"public.{name}": {"mode": mode} for name, mode in modes.items()}
    return Pipeline.model_validate({"source": "shop", "connection": "shop_db", "tables": named})


def problems(asked: Pipeline, endpoints: dict[str, Endpoint]) -> list[str]:
    with pytest.raises(PipelineError) as caught:
        check(asked, endpoints)
    assert not [problem for problem in caught.value.problems if "\n" in problem]
    return caught.value.problems


@pytest.fixture
def stranger(postgres_server: PostgresServer, postgres_database: str) -> Iterator[dict[str, Endpoint]]:  # noqa: F811
    """The database as a role sees it that owns nothing there."""
    with psycopg.connect(postgres_server.admin, autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS stranger")
        admin.execute(sql.SQL("CREATE ROLE stranger LOGIN PASSWORD {}").format(PASSWORD))
    yield endpoint(postgres_database, user="stranger", password=PASSWORD)


def test_connections_that_cannot_be_used(postgres_database: str) -> None:  # noqa: F811
    good = endpoint(postgres_database)
    port = str(free_block())
    asked = pipeline("public.orders")
    for endpoints, kind, reason in (
        ({}, PipelineError, "there is no connection shop_db; ./shudl source add makes one"),
        (endpoint(postgres_database, password="wrong"), PipelineError, "FATAL:  password authentication failed for user"),
        (endpoint(postgres_database, dbname="nosuch"), PipelineError, '"nosuch" does not exist; correct connection shop_db'),
        (endpoint(postgres_database, port=port), SourceUnreachable, "Connection refused; start the database"),
        (endpoint(postgres_database, host="no.such.invalid"), SourceUnreachable, "no.such.invalid"),
    ):
        with pytest.raises(PipelineError) as caught:
            check(asked, endpoints)
        assert type(caught.value) is kind
        (problem,) = caught.value.problems
        assert problem.startswith("pipeline shop: connection: ") and reason in problem
    wrong = {"shop_db": Endpoint("shop_db", "http", "127.0.0.1", 1)}
    assert "of type http, not postgres" in problems(asked, wrong)[0]
    assert "there is no such table" in problems(asked, good)[0]


def test_all_that_is_wrong_with_tables_at_once(postgres_database: str) -> None:  # noqa: F811
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        connection.execute("CREATE TABLE orders (id int PRIMARY KEY)")
        connection.execute("CREATE TABLE keyless (id int)")
        connection.execute("CREATE VIEW seen AS SELECT 1 AS id")
        connection.execute("CREATE UNLOGGED TABLE quick (id int PRIMARY KEY)")
        connection.execute("CREATE TABLE secured (id int PRIMARY KEY)")
        connection.execute("ALTER TABLE secured ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    tables = ("public.orders", "public.order", "public.keyless", "public.seen", "public.quick", "public.secured", "nowhere.x")
    found = problems(pipeline(*tables), endpoint(postgres_database))
    told = dict(problem.removeprefix("pipeline shop: tables.").split(": ", 1) for problem in found)
    assert set(told) == set(tables) - {"public.orders"}
    assert "did you mean public.orders?" in told["public.order"]
    assert "has no primary key, which mode mirror needs; use mode: changelog, or add a key" in told["public.keyless"]
    assert "is a view" in told["public.seen"]
    assert 'ALTER TABLE "public"."quick" SET LOGGED' in told["public.quick"]
    assert "hides rows" in told["public.secured"] and "BYPASSRLS" in told["public.secured"]
    assert "correct the name, or remove it" in told["nowhere.x"]
    with pytest.raises(PipelineError, match="did you mean"):
        reconcile_database(pipeline(*tables), endpoint(postgres_database))
    with psycopg.connect(postgres_database) as connection:
        assert connection.execute("SELECT to_regclass('shudl.heartbeat')").fetchone() == (None,), "something was changed"
        assert connection.execute("SELECT count(*) FROM pg_publication").fetchone() == (0,)
    assert [table.name for table in check(pipeline("public.orders", keyless="changelog"), endpoint(postgres_database))] == [
        "public.orders",
        "public.keyless",
    ]


def test_rights_and_the_sql_that_gives_them(
    postgres_server: PostgresServer,  # noqa: F811
    postgres_database: str,  # noqa: F811
    stranger: dict[str, Endpoint],
) -> None:
    """Each statement that is offered, run by an administrator, leaves nothing to complain of."""
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA sales")
        connection.execute("CREATE TABLE sales.orders (id int PRIMARY KEY)")
        connection.execute('CREATE TABLE "Odd name" (id int PRIMARY KEY)')
        owner, database = connection.info.user, connection.info.dbname
    admin = make_conninfo(postgres_server.admin, dbname=database)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("CREATE TABLE roots (id int PRIMARY KEY)")
    asked = pipeline("sales.orders", "public.Odd name", "public.roots")
    found = problems(asked, stranger)
    assert found[0] == "pipeline shop: connection: role stranger may not replicate; ALTER ROLE stranger REPLICATION"
    assert f"GRANT CREATE ON DATABASE {database} TO stranger" in found[1]
    assert any("tables.sales.orders: belongs to" in p and f"GRANT {owner} TO stranger" in p for p in found)
    assert any("tables.public.roots: belongs to" in p and 'ALTER TABLE "public"."roots" OWNER TO stranger' in p for p in found)

    with connect(asked, stranger) as connection:
        statements = [statement for finding in findings(connection, asked) for statement in finding.sql]
    with psycopg.connect(admin, autocommit=True) as connection:
        for statement in dict.fromkeys(statements):
            connection.execute(statement)
    assert [table.name for table in check(asked, stranger)] == list(asked.tables)
    assert reconcile_database(asked, stranger)
    assert reconcile_database(asked, stranger) == []


def test_slots_of_others(postgres_server: PostgresServer, postgres_database: str) -> None:  # noqa: F811
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        connection.execute("CREATE TABLE orders (id int PRIMARY KEY)")
        for arguments, text in (
            ("'test_decoding', false, false, true", "belongs to plugin test_decoding"),
            ("'pgoutput', false, false, false", "does not survive a failover"),
        ):
            connection.execute(f"SELECT pg_create_logical_replication_slot('shudl_shop', {arguments})")
            (found,) = problems(pipeline("public.orders"), endpoint(postgres_database))
            assert found.startswith("pipeline shop: source: slot shudl_shop ") and text in found
            connection.execute("SELECT pg_drop_replication_slot('shudl_shop')")
        connection.execute("CREATE PUBLICATION p FOR TABLE orders")
        connection.execute("SELECT pg_create_logical_replication_slot('shudl_shop', 'pgoutput', false, false, true)")
        asked, endpoints = pipeline("public.orders"), endpoint(postgres_database)
        assert check(asked, endpoints)
        with reader(connection, postgres_database):
            (found,) = problems(asked, endpoints)
            assert "slot shudl_shop is read by pg_recvlogical" in found
        with reader(connection, postgres_database, PGAPPNAME=DEBEZIUM), kafka_connect() as (connect_endpoint, states):
            assert check(asked, endpoints), "where Kafka Connect does not answer, nobody can tell whose Debezium reads"
            endpoints |= {"shudl_connect": connect_endpoint}
            (found,) = problems(asked, endpoints)
            assert "is read by process" in found and "here is no connector cdc.shop" in found
            states["cdc.shop"] = "RUNNING"
            assert check(asked, endpoints)
        connection.execute("SELECT pg_drop_replication_slot('shudl_shop')")


@contextmanager
def reader(connection: psycopg.Connection[Any], database: str, **variables: str) -> Iterator[None]:
    """Another program that reads the slot ``shudl_shop``."""

    def wait(active: bool) -> None:
        deadline = time.monotonic() + 20
        asked = "SELECT active FROM pg_replication_slots WHERE slot_name = 'shudl_shop'"
        while connection.execute(asked).fetchone()[0] != active:
            assert time.monotonic() < deadline, f"the slot is still {'idle' if active else 'read'}"
            time.sleep(0.1)

    parts = conninfo_to_dict(database)
    address = make_conninfo("", **{key: parts[key] for key in ("host", "port", "user", "dbname")})
    command = [settings.engines / "postgres" / "bin" / "pg_recvlogical", "-w", "-d", address]
    command += ["--slot=shudl_shop", "--start", "-f", "-", "-o", "proto_version=1", "-o", "publication_names=p"]
    process = subprocess.Popen(command, env=os.environ | {"PGPASSWORD": parts["password"]} | variables, stdout=subprocess.DEVNULL)
    try:
        wait(True)
        yield
    finally:
        process.terminate()
        process.wait(10)
    wait(False)


@contextmanager
def kafka_connect() -> Iterator[tuple[Endpoint, dict[str, str]]]:
    """A server that answers for the states of connectors as Kafka Connect does."""
    states: dict[str, str] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state = states.get(self.path.split("/")[2])
            self.send_response(200 if state else 404)
            self.end_headers()
            parts = {"connector": {"state": state}, "tasks": [{"state": state}]}
            self.wfile.write(json.dumps(parts if state else {"error_code": 404, "message": "No status found"}).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Endpoint("shudl_connect", "http", "127.0.0.1", server.server_port), states
    finally:
        server.shutdown()
        server.server_close()


def test_a_server_that_is_not_ready() -> None:
    with throw_away_server() as server:
        with psycopg.connect(server.admin, autocommit=True) as admin:
            for setting in ("wal_level = replica", "max_wal_senders = 0", "max_replication_slots = 0"):
                admin.execute(f"ALTER SYSTEM SET {setting}")
        server.restart()
        with psycopg.connect(server.user, autocommit=True) as connection:
            connection.execute("CREATE TABLE orders (id int PRIMARY KEY)")
        found = problems(pipeline("public.orders"), endpoint(server.user))
    assert [problem.removeprefix("pipeline shop: connection: ").partition(";")[0] for problem in found] == [
        "wal_level is replica",
        "no replication slot is free: all 0 are taken",
        "no WAL sender is free: all 0 are taken",
    ]


# ── ./shudl source add, ./shudl check ────────────────────────────────────────────────────────────────────


class Shop:
    """A state folder and a folder of pipelines, and the command line on them."""

    def __init__(self, folder: Path, database: str) -> None:
        self.home, self.pipelines = folder / "home", folder / "pipelines"
        parts = conninfo_to_dict(database)
        self.password = parts["password"]
        self.url = f"postgresql://{parts['user']}@{parts['host']}:{parts['port']}/{parts['dbname']}"
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {
            "SHUDL_HOME": str(self.home),
            "SHUDL_PIPELINES": str(self.pipelines),
            "SHUDL_PORT_BASE": str(free_block()),
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
        }

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "include.cli", *arguments]
        return subprocess.run(
            command, env=self.env | variables, cwd=ROOT, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
        )


@pytest.fixture
def shop(tmp_path: Path, postgres_database: str) -> Shop:  # noqa: F811
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        connection.execute("CREATE TABLE orders (id int, line int, note text, PRIMARY KEY (line, id))")
        connection.execute("INSERT INTO orders SELECT n, 1, 'x' FROM generate_series(1, 1234) n")
        connection.execute('CREATE TABLE "Odd: #1\'" (id int PRIMARY KEY)')
        connection.execute("CREATE TABLE history (at timestamptz)")
        connection.execute("CREATE UNLOGGED TABLE quick (id int PRIMARY KEY)")
        connection.execute("CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id)")
        connection.execute("CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10)")
        connection.execute("CREATE SCHEMA sales")
        connection.execute('CREATE TABLE sales."a.b" (id int PRIMARY KEY)')
        connection.execute("ANALYZE")
    return Shop(tmp_path, postgres_database)


def test_source_add_writes_a_file_that_is_right(shop: Shop) -> None:
    done = shop.run("source", "add", shop.url, "--name", "shop", PGPASSWORD=shop.password)
    assert done.returncode == 0, done.stderr
    path = shop.pipelines / "shop.yml"
    text = path.read_text()
    assert {name: table.mode for name, table in load(path).tables.items()} == {
        "public.Odd: #1'": "mirror",
        "public.history": "changelog",
        "public.orders": "mirror",
        "public.parted": "mirror",
    }
    assert "about 1,234 rows, " in text and "key line, id" in text
    assert "# public.quick: left out: is unlogged" in text
    assert "# sales.a.b: left out: a dot in its name" in text
    assert "parted_1" not in text
    assert "4 tables (1 without key as changelog, 2 left out)" in done.stdout
    assert "./shudl run cdc_shop" in done.stdout
    assert "PostgreSQL must be changed" not in done.stdout
    secret = shop.home / "secrets" / "sources" / "shop_db.json"
    assert secret.stat().st_mode & 0o777 == 0o600 and secret.parent.stat().st_mode & 0o777 == 0o700
    assert json.loads(secret.read_text())["password"] == shop.password
    assert shop.password not in text + done.stdout + done.stderr

    checked = shop.run("check")
    assert checked.returncode == 0, checked.stderr
    assert "shop.yml: source shop, 4 tables through connection shop_db (file and database)" in checked.stdout
    path.write_text(text.replace("public.orders", "public.order").replace("mode: changelog", "mode: mirror"))
    checked = shop.run("check", str(path))
    line = {name: number for number, row in enumerate(text.splitlines(), 1) for name in ("orders", "history") if name in row}
    assert checked.returncode == 1
    assert f"shop.yml:{line['orders']}: tables.public.order: there is no such table in database" in checked.stderr
    assert f"shop.yml:{line['history']}: tables.public.history: has no primary key" in checked.stderr
    assert "2 problems" in checked.stderr
    assert shop.run("check", "--offline").returncode == 0

    again = shop.run("source", "add", shop.url, "--name", "shop", PGPASSWORD=shop.password)
    assert again.returncode == 1 and "is there already; nothing was written" in again.stderr
    (shop.pipelines / "other.yml").write_text(text.replace("source: shop", "source: other"))
    taken = shop.run("source", "add", shop.url, "--name", "flights", PGPASSWORD=shop.password)
    assert taken.returncode == 1 and "is the demo's" in taken.stderr


def test_source_add_refuses(shop: Shop) -> None:
    for url, text in (
        (shop.url.replace("@", ":secret@"), "holds a password"),
        (f"{shop.url}?password=secret", "holds a password"),
        (f"{shop.url}?sslmode=require", "sslmode cannot be given here"),
        ("mysql://a@b/c", "must be postgresql://user@host:port/database"),
        ("postgresql:///c", "lacks user@"),
        (f"{shop.url.rpartition(':')[0]}:nine/x", "name one host and one port"),
    ):
        done = shop.run("source", "add", url)
        assert done.returncode in (1, 2) and text in done.stderr, (url, done.stderr)
        assert "secret" not in done.stderr
    assert "PGPASSWORD" in shop.run("source", "add", shop.url).stderr
    assert "password authentication failed" in shop.run("source", "add", shop.url, PGPASSWORD="wrong").stderr
    assert "no such schema" in shop.run("source", "add", shop.url, "--schema", "nosuch", PGPASSWORD=shop.password).stderr
    none = shop.run("source", "add", shop.url, "--schema", "sales", PGPASSWORD=shop.password)
    assert none.returncode == 1 and "sales.a.b: a dot in its name" in none.stderr
    assert "--name" in shop.run("source", "add", shop.url, "--name", "Shop", PGPASSWORD=shop.password).stderr
    assert not shop.pipelines.exists() and not shop.home.joinpath("secrets").exists()


def test_source_add_reads_pgpass(shop: Shop, tmp_path: Path) -> None:
    passwords = tmp_path / "pgpass"
    passwords.write_text(f"*:*:*:*:{shop.password}\n")
    passwords.chmod(0o600)
    done = shop.run("source", "add", shop.url, "--schema", "public", PGPASSFILE=str(passwords))
    assert done.returncode == 0, done.stderr
    (path,) = shop.pipelines.iterdir()
    assert load(path).source == path.stem


def test_a_connection_file_that_cannot_be_read_is_named(shop: Shop) -> None:
    folder = shop.home / "secrets" / "sources"
    folder.mkdir(parents=True)
    (folder / "x_db.json").write_text("{")
    done = shop.run("sql", "postgres", "SELECT 1")
    assert done.returncode == 1 and "x_db.json" in done.stderr and "./shudl source add" in done.stderr
