"""The flights database on a real PostgreSQL: loaded, replayed, killed, resumed; each time every value of every row is
compared with what DuckDB makes of the package's CSV files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from include.demo import flights
from include.demo.state import LOCK_TIMEOUT_S, NEW_YORK, TABLES, Connection, connect, only_writer
from include.platform.settings import ROOT
from tests import expected_flights as expected
from tests.postgres_server import PostgresServer, postgres_database, postgres_server  # noqa: F401

FROM_DAY = date(2013, 12, 27)
"""The days from here on have every kind of flight: diverted, turned back, cancelled, past midnight."""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with expected.open_csv() as con:
        yield con


@pytest.fixture(scope="module")
def template(postgres_server: PostgresServer) -> Iterator[str]:  # noqa: F811
    """The name of a database that is loaded and not replayed."""
    with postgres_server.database() as conninfo:
        flights.load(conninfo, FROM_DAY)
        yield str(conninfo_to_dict(conninfo)["dbname"])


@pytest.fixture
def loaded(postgres_server: PostgresServer, template: str) -> Iterator[str]:  # noqa: F811
    """The connection string of a loaded database of the test's own."""
    with postgres_server.database(template=template) as conninfo:
        yield conninfo


POSTGRES_TYPES = {
    "BIGINT": "bigint",
    "INTEGER": "integer",
    "DOUBLE": "double precision",
    "VARCHAR": "text",
    "TIMESTAMP": "timestamp with time zone",
}


def columns_in_postgres(conn: Connection, table: str) -> dict[str, str]:
    return dict(
        conn.execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            [f"public.{table}"],
        ).fetchall()
    )


def assert_equal(conninfo: str, con: duckdb.DuckDBPyConnection, number: int, from_day: date = FROM_DAY) -> None:
    """All five tables hold what they must after ``number`` events: columns, types, every value of every row."""
    relations = {table: con.table(table) for table in TABLES}
    relations["flights"] = expected.flights_after(con, from_day, number)
    relations["weather"] = expected.weather_after(con, from_day, number)
    for table, relation in relations.items():
        with psycopg.connect(conninfo) as conn, tempfile.NamedTemporaryFile() as file:
            columns = dict(column.split() for column in expected.COLUMNS[table].split(", "))
            types = {name: POSTGRES_TYPES.get(t, t.replace("DECIMAL", "numeric")) for name, t in columns.items()}
            assert columns_in_postgres(conn, table) == types
            values = ", ".join("time_hour AT TIME ZONE 'UTC'" if name == "time_hour" else name for name in columns)
            with conn.cursor().copy(f"COPY (SELECT {values} FROM {table}) TO STDOUT (FORMAT csv, NULL 'NA')") as copy:
                file.writelines(copy)
            file.flush()
            found = con.sql(f"FROM {expected.read_csv(table, Path(file.name), header=False)}")
            missing, surplus = (
                left.except_(right).limit(3).fetchall() for left, right in ((relation, found), (found, relation))
            )
            rows = [side.aggregate("count(*)").fetchall()[0][0] for side in (found, relation)]
        assert not missing, f"{table} after {number} events: not in PostgreSQL {missing}, instead of {surplus}"
        assert not surplus, f"{table} after {number} events: only in PostgreSQL {surplus}"
        assert rows[0] == rows[1] > 0


def total_events(con: duckdb.DuckDBPyConnection, from_day: date = FROM_DAY) -> int:
    return len(expected.events(con, from_day))


def start(code: str, conninfo: str) -> subprocess.Popen[bytes]:
    """Another process that runs ``code`` with ``conninfo``, the module ``flights`` and ``date`` at hand."""
    head = "import os, signal; from datetime import date; from include.demo import flights; "
    return subprocess.Popen(
        [sys.executable, "-c", head + "conninfo = os.environ['CONNINFO']\n" + code],
        cwd=ROOT,
        env=os.environ | {"CONNINFO": conninfo, "PYTHONPATH": str(ROOT)},
    )


def wait_until(condition: Callable[[], bool], what: str, deadline_s: float = 30) -> None:
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not after {deadline_s} s"
        time.sleep(0.01)


# --- load


def test_load_is_everything_before_the_day(postgres_database: str, con: duckdb.DuckDBPyConnection) -> None:  # noqa: F811
    told: list[flights.LoadProgress] = []
    report = flights.load(postgres_database, date(2013, 12, 29), told.append)
    assert report.loaded
    assert report.events == total_events(con, date(2013, 12, 29))
    assert_equal(postgres_database, con, 0, date(2013, 12, 29))
    assert flights.summary(postgres_database) == report.rows
    assert {p.table: p.rows for p in told} == {p.table: p.total_rows for p in told} == report.rows
    position = flights.position(postgres_database)
    assert (position.event_number, position.total_events) == (0, report.events)
    assert position.virtual_time == datetime(2013, 12, 29, tzinfo=NEW_YORK)


def test_second_load_does_nothing(loaded: str, con: duckdb.DuckDBPyConnection) -> None:
    flights.replay(loaded, max_events=500)
    report = flights.load(loaded, FROM_DAY)
    assert (report.loaded, report.rows, report.events) == (False, {}, total_events(con))
    assert flights.position(loaded).event_number == 500
    assert_equal(loaded, con, 500)


def test_load_from_another_day_is_refused_until_reset(loaded: str, con: duckdb.DuckDBPyConnection) -> None:
    flights.replay(loaded, max_events=500)
    with pytest.raises(flights.DemoError, match=r"loaded for a replay from 2013-12-27, not 2013-12-30.*reset=True"):
        flights.load(loaded, date(2013, 12, 30))
    assert_equal(loaded, con, 500)
    assert flights.load(loaded, date(2013, 12, 30), reset=True).loaded
    assert flights.position(loaded).from_day == date(2013, 12, 30)
    assert_equal(loaded, con, 0, date(2013, 12, 30))


@pytest.mark.parametrize("day", [date(2012, 12, 31), date(2014, 1, 1)])
def test_load_from_a_day_outside_of_the_year_is_refused(postgres_database: str, day: date) -> None:  # noqa: F811
    with pytest.raises(flights.DemoError, match=f"from_day {day}"):
        flights.load(postgres_database, day)


def test_load_spares_tables_from_elsewhere(postgres_database: str) -> None:  # noqa: F811
    with psycopg.connect(postgres_database) as conn:
        conn.execute("CREATE TABLE planes AS SELECT 1 AS mine")
    with pytest.raises(flights.DemoError, match=r'"planes" already exists.*empty database'):
        flights.load(postgres_database, FROM_DAY)
    with psycopg.connect(postgres_database) as conn:
        assert conn.execute("SELECT * FROM planes").fetchall() == [(1,)]
        assert conn.execute("SELECT to_regclass('airlines')").fetchone() == (None,)


def test_killed_load_leaves_nothing(postgres_database: str, con: duckdb.DuckDBPyConnection) -> None:  # noqa: F811
    process = start(
        "def kill(p):\n"
        "    if p.table == 'flights' and p.rows > 100_000: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"flights.load(conninfo, date({FROM_DAY.year}, {FROM_DAY.month}, {FROM_DAY.day}), kill)",
        postgres_database,
    )
    assert process.wait(60) == -signal.SIGKILL
    with pytest.raises(flights.DemoError, match="holds no demo flights"):
        flights.position(postgres_database)
    with psycopg.connect(postgres_database) as conn:
        relations = conn.execute(
            "SELECT count(*) FROM pg_class WHERE relnamespace::regnamespace::text IN ('public', 'demo')"
        ).fetchone()
    assert relations == (0,)
    assert flights.load(postgres_database, FROM_DAY).loaded
    assert_equal(postgres_database, con, 0)


# --- replay


def test_events_are_those_of_the_rules(loaded: str, con: duckdb.DuckDBPyConnection) -> None:
    with psycopg.connect(loaded) as conn:
        conn.execute("SET TIME ZONE 'UTC'")
        planned = conn.execute("SELECT number, at, kind, origin, flight_id FROM demo.events ORDER BY number").fetchall()
        assert [(n, at.replace(tzinfo=None), *rest) for n, at, *rest in planned] == (
            expected.events(con, FROM_DAY).fetchall()
        )
        for flight_id, wanted in expected.EXAMPLES.items():
            found = conn.execute(
                "SELECT kind, to_char(at AT TIME ZONE 'America/New_York', 'YYYY-MM-DD HH24:MI') "
                "FROM demo.events WHERE flight_id = %s ORDER BY number",
                [flight_id],
            ).fetchall()
            assert found == wanted


def test_replay_stop_by_stop(loaded: str, con: duckdb.DuckDBPyConnection) -> None:
    """Until an instant, until a day's end, for a number of events, when told to, to the end."""

    def check(report: flights.ReplayReport, ended: str, number: int) -> None:
        assert (report.ended, report.event_number) == (ended, number)
        assert flights.position(loaded).event_number == number
        assert_equal(loaded, con, number)

    noon = datetime(2013, 12, 27, 12, 0, tzinfo=NEW_YORK)
    by_noon = expected.events_until(con, FROM_DAY, noon)
    check(flights.replay(loaded, until=noon), "until", by_noon)
    assert flights.position(loaded).virtual_time == noon, "weather comes at the full hour, so until is inclusive"
    assert flights.replay(loaded, until=noon).events == 0
    assert flights.replay(loaded, until=noon - timedelta(hours=5)).events == 0, "time does not go back"

    check(flights.replay(loaded, max_events=777), "max_events", by_noon + 777)

    end_of_day = datetime(2013, 12, 29, 4, 59, 59, tzinfo=UTC)
    by_midnight = expected.events_until(con, FROM_DAY, end_of_day)
    told: list[flights.ReplayProgress] = []
    report = flights.replay(loaded, until=date(2013, 12, 28), progress=told.append)
    check(report, "until", by_midnight)
    assert report.events == by_midnight - by_noon - 777
    assert report.counts.inserts + report.counts.updates + report.counts.deletes == report.events
    assert (told[-1].event_number, told[-1].virtual_time) == (report.event_number, report.virtual_time)

    asked = iter([False, False, False, True])
    report = flights.replay(loaded, stop=lambda: next(asked))
    assert report.ended == "stop"
    assert 0 < report.events < report.total_events - by_midnight
    check(report, "stop", by_midnight + report.events)

    check(flights.replay(loaded), "end", total_events(con))
    position = flights.position(loaded)
    assert position.finished
    assert "(100%)" in flights.describe(position)
    kinds = dict(expected.events(con, FROM_DAY).aggregate("kind, count(*)").fetchall())
    assert vars(position.counts) == kinds
    assert flights.replay(loaded).events == 0


def test_killed_replay_goes_on_where_it_was(loaded: str, con: duckdb.DuckDBPyConnection) -> None:
    """Every change reaches the table once and in its order, over two kills; a trigger is the witness."""
    with psycopg.connect(loaded) as conn:
        conn.execute("""
            CREATE TABLE witness (number bigserial, operation text, flight_id bigint, origin text);
            CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql AS $$
            DECLARE r jsonb := to_jsonb(coalesce(new, old));
            BEGIN
                INSERT INTO witness (operation, flight_id, origin)
                VALUES (tg_op, (r ->> 'id')::bigint, CASE WHEN tg_table_name = 'weather' THEN r ->> 'origin' END);
                RETURN NULL;
            END $$;
            CREATE TRIGGER witness AFTER INSERT OR UPDATE OR DELETE ON flights FOR EACH ROW EXECUTE FUNCTION witness();
            CREATE TRIGGER witness AFTER INSERT OR UPDATE OR DELETE ON weather FOR EACH ROW EXECUTE FUNCTION witness();
        """)
    for mark in (1000, 3000):
        process = start("flights.replay(conninfo, rate=1500)", loaded)
        try:
            wait_until(lambda mark=mark: flights.position(loaded).event_number > mark, f"event {mark}")  # type: ignore[misc]
        finally:
            process.kill()
        assert process.wait(10) == -signal.SIGKILL
        with connect(loaded) as conn, only_writer(conn):  # the server has noticed
            number = flights.position(loaded).event_number
            assert mark < number < total_events(con)
            assert_equal(loaded, con, number)
    report = flights.replay(loaded)
    assert report.events == total_events(con) - number
    assert_equal(loaded, con, total_events(con))

    operations = {"weather": "INSERT", "scheduled": "INSERT", "cancelled": "DELETE"}
    wanted = expected.events(con, FROM_DAY).project("kind, flight_id, origin").fetchall()
    with psycopg.connect(loaded) as conn:
        seen = conn.execute("SELECT operation, flight_id, origin FROM witness ORDER BY number").fetchall()
    assert seen == [(operations.get(kind, "UPDATE"), *rest) for kind, *rest in wanted]


def test_replay_survives_lost_connections(loaded: str, con: duckdb.DuckDBPyConnection) -> None:
    reports: list[flights.ReplayReport] = []
    thread = threading.Thread(target=lambda: reports.append(flights.replay(loaded, rate=1500, max_events=9000)))
    thread.start()
    with psycopg.connect(loaded, autocommit=True) as conn:
        for mark in (500, 2000):
            wait_until(lambda mark=mark: flights.position(loaded).event_number > mark, f"event {mark}")  # type: ignore[misc]
            ((killed,),) = conn.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND granted "
                "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            ).fetchall()
            assert killed == 1
    thread.join(60)
    assert [(r.ended, r.event_number, r.reconnects) for r in reports] == [("max_events", 9000, 2)]
    assert_equal(loaded, con, 9000)


def test_an_error_that_is_no_lost_connection_ends_the_replay(loaded: str) -> None:
    with psycopg.connect(loaded) as conn:
        conn.execute("INSERT INTO flights SELECT * FROM demo.flights WHERE id = 108666")
    with pytest.raises(psycopg.errors.UniqueViolation, match="108666"):
        flights.replay(loaded)


def test_second_writer_is_refused(loaded: str) -> None:
    with connect(loaded) as conn, only_writer(conn):
        began = time.monotonic()
        with pytest.raises(flights.DemoError, match=f"server process {conn.info.backend_pid}"):
            flights.replay(loaded)
        with pytest.raises(flights.DemoError, match="another load or replay"):
            flights.load(loaded, FROM_DAY, reset=True)
        assert time.monotonic() - began < 4 * LOCK_TIMEOUT_S
        assert flights.position(loaded).event_number == 0
    assert flights.replay(loaded, max_events=1).events == 1


def test_bounds_below_zero_and_a_missing_load_are_refused(loaded: str, postgres_database: str) -> None:  # noqa: F811
    with pytest.raises(ValueError, match="max_events -1"):
        flights.replay(loaded, max_events=-1)
    with pytest.raises(ValueError, match="rate -5"):
        flights.replay(loaded, rate=-5)
    for call in (flights.replay, flights.position, flights.summary):
        with pytest.raises(flights.DemoError, match="holds no demo flights"):
            call(postgres_database)
