"""How far a database is with the demo: its position, its row counts, and the lock that one writer at a time holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import date, datetime
from zoneinfo import ZoneInfo

import psycopg
from psycopg.rows import TupleRow, dict_row

Connection = psycopg.Connection[TupleRow]

NEW_YORK = ZoneInfo("America/New_York")
TABLES = ("airlines", "airports", "planes", "weather", "flights")
CONNECT_TIMEOUT_S = 10
LOCK_TIMEOUT_S = 5
"""How long a writer waits for another's lock: the server needs a moment to notice that a killed client is gone."""

_LOCK_KEY = "hashtextextended('demo.replay_state', 0)"


class DemoError(RuntimeError):
    """The demo cannot do what was asked; the text names the thing, the value and the way out."""


@dataclass(frozen=True)
class Counts:
    """Events by kind."""

    weather: int = 0
    scheduled: int = 0
    departed: int = 0
    arrived: int = 0
    cancelled: int = 0

    @property
    def inserts(self) -> int:
        return self.weather + self.scheduled

    @property
    def updates(self) -> int:
        return self.departed + self.arrived

    @property
    def deletes(self) -> int:
        return self.cancelled

    def __sub__(self, other: Counts) -> Counts:
        return Counts(**{f.name: getattr(self, f.name) - getattr(other, f.name) for f in fields(self)})


@dataclass(frozen=True)
class Position:
    """How far the replay of a database is."""

    from_day: date
    """The first local day that is replayed; the days before it were loaded."""
    virtual_time: datetime
    """Of the last event applied, in New York's time; the first day's midnight before the first one."""
    event_number: int
    """Of the last event applied; 0 before the first one."""
    total_events: int
    counts: Counts
    """The events applied so far."""

    @property
    def finished(self) -> bool:
        return self.event_number == self.total_events


def connect(conninfo: str) -> Connection:
    """An autocommit connection that reads instants in New York's time, and whose work ends when this process does.

    Raises ``psycopg.OperationalError``.
    """
    conn = psycopg.connect(
        conninfo, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S, application_name="shudl demo replay"
    )
    conn.execute(f"SET TIME ZONE '{NEW_YORK.key}'; SET client_connection_check_interval = '1s'")
    return conn


@contextmanager
def only_writer(conn: Connection) -> Iterator[None]:
    """Holds the database's lock for loads and replays; raises :class:`DemoError` when somebody else keeps it."""
    conn.execute(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'")
    try:
        conn.execute(f"SELECT pg_advisory_lock({_LOCK_KEY})")
    except psycopg.errors.LockNotAvailable as error:
        holder = conn.execute(
            "SELECT string_agg(pid::text, ', ') FROM pg_locks, "
            f"(SELECT {_LOCK_KEY} AS key) WHERE locktype = 'advisory' AND granted AND objsubid = 1 "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
            "AND (classid::bigint << 32 | objid::bigint) = key"
        ).fetchone()
        raise DemoError(
            f"database {conn.info.dbname}: another load or replay of the demo is running "
            f"(server process {holder[0] if holder else 'unknown'}); stop it, or wait for its end"
        ) from error
    conn.execute("RESET lock_timeout")
    try:
        yield
    finally:
        if not conn.closed:
            conn.execute(f"SELECT pg_advisory_unlock({_LOCK_KEY})")


def is_loaded(conn: Connection) -> bool:
    row = conn.execute("SELECT to_regclass('demo.replay_state') IS NOT NULL").fetchone()
    return bool(row and row[0])


def read_position(conn: Connection) -> Position:
    """The position; raises :class:`DemoError` when the demo is not loaded."""
    if not is_loaded(conn):
        raise DemoError(f"database {conn.info.dbname} holds no demo flights: load them first")
    with conn.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(
            "SELECT *, (SELECT coalesce(max(number), 0) FROM demo.events) AS total_events FROM demo.replay_state"
        ).fetchone()
    if row is None:
        raise DemoError(f"database {conn.info.dbname}: demo.replay_state is empty; load anew with reset=True")
    return Position(
        from_day=row["from_day"],
        virtual_time=row["virtual_time"],
        event_number=row["event_number"],
        total_events=row["total_events"],
        counts=Counts(**{f.name: row[f.name] for f in fields(Counts)}),
    )


def position(conninfo: str) -> Position:
    """How far the replay is; changes nothing and waits for nobody. Raises :class:`DemoError` before the load."""
    with connect(conninfo) as conn:
        return read_position(conn)


def describe(position: Position) -> str:
    """One line for people."""
    share = position.event_number / position.total_events if position.total_events else 1.0
    counts = position.counts
    return (
        f"{position.virtual_time:%Y-%m-%d %H:%M} in New York, "
        f"event {position.event_number:,} of {position.total_events:,} ({share:.0%}): "
        f"{counts.scheduled:,} scheduled, {counts.departed:,} departed, {counts.arrived:,} arrived, "
        f"{counts.cancelled:,} cancelled, {counts.weather:,} weather reports"
    )


def summary(conninfo: str) -> dict[str, int]:
    """Rows in each of the source's tables, of one moment. Raises :class:`DemoError` before the load."""
    with connect(conninfo) as conn:
        if not is_loaded(conn):
            raise DemoError(f"database {conn.info.dbname} holds no demo flights: load them first")
        counted = conn.execute(
            "SELECT " + ", ".join(f"(SELECT count(*) FROM public.{table})" for table in TABLES)
        ).fetchone()
    return dict(zip(TABLES, counted or (), strict=True))
