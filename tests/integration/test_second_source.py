"""A second database is one file: pgbench's own schema, under pgbench's own load, from ``source add`` to ``source remove``."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from include.cdc.pipelines import by_source
from include.lake.catalog import Lake
from include.platform.airflow import AirflowError
from include.platform.evidence import latest_evidence
from include.platform.settings import settings
from tests.live import Platform, shudl

PGBENCH = settings.engines / "postgres" / "bin" / "pgbench"
APPEARS_S = 60
"""Within this a new pipeline file has its DAGs: files are read again every 20 s."""

TABLES = {
    "public.pgbench_accounts": "mirror",
    "public.pgbench_branches": "mirror",
    "public.pgbench_history": "changelog",
    "public.pgbench_tellers": "mirror",
}


def pgbench(conninfo: str, *arguments: str) -> subprocess.Popen[str]:
    parts = psycopg.conninfo.conninfo_to_dict(conninfo)
    command = [PGBENCH, "-h", parts["host"], "-p", parts["port"], "-U", parts["user"], *arguments, parts["dbname"]]
    env = os.environ | {"PGPASSWORD": parts["password"]}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@contextmanager
def load(conninfo: str) -> Iterator[None]:
    """pgbench's transactions, 50 a second: three updates of mirrored rows each, and a row of history."""
    process = pgbench(conninfo, "--client=4", "--rate=50", "--time=900", "--no-vacuum")
    try:
        yield
        assert process.poll() is None, process.communicate()[0][-2000:]
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def bench(flights: Platform) -> Iterator[str]:
    """The database ``bench``, filled by pgbench, as a connection string."""
    admin = make_conninfo(flights.source, user="postgres", password=settings.secret("postgres_superuser"), dbname="postgres")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS bench WITH (FORCE)")
        connection.execute("CREATE DATABASE bench OWNER flights")
    conninfo = make_conninfo(flights.source, dbname="bench")
    made = pgbench(conninfo, "--initialize", "--scale=1", "--quiet")
    output = made.communicate(timeout=60)[0]
    assert made.returncode == 0, output
    yield conninfo
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("DROP DATABASE bench WITH (FORCE)")


def count(conninfo: str, statement: str) -> int:
    with psycopg.connect(conninfo) as connection:
        return connection.execute(statement).fetchone()[0]


def test_bad_input_stops_the_dag_at_its_first_task(flights: Platform) -> None:
    """One failed task, tried once, with the text of ``./shudl check``; nothing was made."""
    path = settings.pipelines / "wrong.yml"
    path.write_text("source: wrong\nconnection: flights_db\ntables:\n  public.flight: {mode: mirror}\n")
    broken = settings.pipelines / "broken.yml"
    broken.write_text("source: broken\ntables: {}\n")
    try:
        checked = shudl("check")
        assert checked.returncode == 1
        problem = "wrong.yml:4: tables.public.flight: there is no such table in database flights; did you mean public.flights?"
        assert problem in checked.stderr
        assert "broken.yml:1: connection: is missing; add it" in checked.stderr
        flights.airflow.wait_for_dags({"cdc_wrong"}, APPEARS_S)
        flights.eventually(lambda: flights.airflow.import_errors(), APPEARS_S, "the broken file is an import error")
        (error,) = flights.airflow.import_errors()
        assert error["filename"].endswith("check_pipelines.py") and "broken.yml:1: connection: is missing" in error["stack_trace"]
        ran = shudl("run", "cdc_wrong")
        assert ran.returncode == 1 and problem in ran.stderr
        latest = flights.airflow.latest_run("cdc_wrong")
        tasks = flights.airflow.task_instances("cdc_wrong", latest["dag_run_id"])
        states = {task["task_id"]: (task["state"], task["try_number"]) for task in tasks}
        assert states.pop("database") == ("failed", 1)
        assert {state for state, _ in states.values()} == {"upstream_failed"}
        assert count(flights.source, "SELECT count(*) FROM pg_publication WHERE pubname = 'shudl_wrong'") == 0
    finally:
        try:
            flights.airflow.pause("cdc_wrong")
        except AirflowError:
            pass  # it was never read
        path.unlink()
        broken.unlink()


def test_a_second_database_is_one_file(flights: Platform, bench: str) -> None:
    parts = psycopg.conninfo.conninfo_to_dict(bench)
    jobs = {job["name"] for job in flights.jobs()}
    url = f"postgresql://{parts['user']}@{parts['host']}:{parts['port']}/bench"
    done = shudl("source", "add", url, PGPASSWORD=parts["password"])
    assert done.returncode == 0, done.stderr
    try:
        assert "Connection bench_db: kept, and made in Airflow" in done.stdout
        assert {name: table.mode for name, table in by_source("bench").tables.items()} == TABLES
        checked = shudl("check")
        assert checked.returncode == 0, checked.stderr
        assert "bench.yml: source bench, 4 tables through connection bench_db (file and database)" in checked.stdout
        flights.airflow.wait_for_dags({"cdc_bench", "prove_bench"}, APPEARS_S)
        with load(bench):
            for dag_id in ("cdc_bench", "prove_bench"):
                ran = shudl("run", dag_id)
                assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
            changed = count(bench, "SELECT count(*) FROM pgbench_history")
        assert changed > 500, "pgbench hardly ran while the tables were captured and proved"
        evidence = latest_evidence("prove_bench")
        assert evidence and evidence["unresolved"] == 0
        proved = {found["table"]: found["right_rows"] for found in evidence["comparisons"]}
        assert set(proved) == set(TABLES)
        assert proved["public.pgbench_accounts"] == 100_000

        # The one row of pgbench_branches changes all the time; once the load has ended every row is compared as it stays.
        assert shudl("run", "prove_bench").returncode == 0
        evidence = latest_evidence("prove_bench")
        assert evidence and evidence["verdict"] == "equal"
        checked = shudl("run", "check_pipelines")
        assert checked.returncode == 0, checked.stderr
        assert not flights.airflow.import_errors(), "every file is right again"
    finally:
        removed = shudl("source", "remove", "bench")
    assert removed.returncode == 0, removed.stderr
    assert {job["name"] for job in flights.jobs()} == jobs, "the jobs of flights go on, those of bench have ended"
    assert count(bench, "SELECT count(*) FROM pg_replication_slots WHERE database = 'bench'") == 0
    assert count(bench, "SELECT count(*) FROM pg_publication") == 0
    assert not flights.airflow.has_connection("bench_db")
    assert not (settings.pipelines / "bench.yml").exists() and not list(settings.source_secrets.iterdir())
    catalog = Lake.from_endpoints(flights.endpoints).pyiceberg()
    assert ("cdc_bench", "pgbench_accounts") in catalog.list_tables("cdc_bench"), "the lake keeps its tables"
