"""Loads the flights database: everything before a chosen day, and the plan of what comes after it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import psycopg

from include.demo import dataset
from include.demo.state import TABLES, Connection, DemoError, connect, is_loaded, only_writer, read_position

_SQL = Path(__file__).parent
_CHUNK_ROWS = 5_000


@dataclass(frozen=True)
class LoadProgress:
    table: str
    rows: int
    """Copied so far."""
    total_rows: int


@dataclass(frozen=True)
class LoadReport:
    from_day: date
    loaded: bool
    """False when the database was loaded before and nothing was done."""
    rows: dict[str, int]
    """Rows copied into each table; empty when nothing was done."""
    events: int
    """Events that the replay has in all."""
    seconds: float


def _check(from_day: date) -> None:
    if not dataset.FIRST_DAY <= from_day <= dataset.LAST_DAY:
        raise DemoError(
            f"from_day {from_day}: flights are of {dataset.FIRST_DAY} to {dataset.LAST_DAY}; choose such a day"
        )


def _copy(conn: Connection, table: str, columns: list[str], lines: list[str], progress: Callable[[int], None]) -> None:
    with (
        conn.cursor() as cursor,
        cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT csv, NULL 'NA')") as copy,
    ):
        for start in range(0, len(lines), _CHUNK_ROWS):
            copy.write("".join(lines[start : start + _CHUNK_ROWS]))
            progress(min(start + _CHUNK_ROWS, len(lines)))


def _fill(conn: Connection, from_day: date, progress: Callable[[LoadProgress], None] | None) -> dict[str, int]:
    rows = {}
    for name in TABLES:
        table = dataset.read(name)
        if name == "flights":
            lines = [f"{position},{line}" for position, line in enumerate(table.lines, start=1)]
            table = dataset.CsvTable(["id", *table.columns], lines)
        lines = table.lines
        if name in ("weather", "flights"):
            lines, later = dataset.split_by_day(table, from_day)
            _copy(conn, f"demo.{name}", table.columns, later, lambda done: None)

        def tell(done: int, name: str = name, total: int = len(lines)) -> None:
            if progress:
                progress(LoadProgress(name, done, total))

        _copy(conn, f"public.{name}", table.columns, lines, tell)
        rows[name] = len(lines)
    return rows


def load(
    conninfo: str,
    from_day: date,
    progress: Callable[[LoadProgress], None] | None = None,
    *,
    reset: bool = False,
) -> LoadReport:
    """Makes and fills the tables ``airlines, airports, planes, weather, flights`` in schema ``public``, and plans the
    replay in schema ``demo``.

    Flights and weather of the local days before ``from_day`` are loaded as the package has them, complete: also those
    that never left, and those that land after midnight. The replay adds the days from ``from_day`` on.

    All in one transaction: a load that is killed leaves nothing behind. On a database that is loaded from the same
    day it does nothing, however far the replay is. ``reset=True`` empties the tables (by DELETE, which change data
    capture carries on, where connectors skip TRUNCATE) and loads anew.

    Raises :class:`DemoError` for a day outside of 2013, for a database loaded from another day, for one that has
    tables of these names from elsewhere, and while a replay or another load is running.
    """
    _check(from_day)
    started = time.monotonic()
    with connect(conninfo) as conn, only_writer(conn):
        present = is_loaded(conn)
        if present and not reset:
            position = read_position(conn)
            if position.from_day != from_day:
                raise DemoError(
                    f"database {conn.info.dbname} is loaded for a replay from {position.from_day}, not {from_day}: "
                    f"use that day, or reset=True to empty the tables and load anew"
                )
            return LoadReport(from_day, False, {}, position.total_events, time.monotonic() - started)
        with conn.transaction():
            if present:
                for table in TABLES:
                    conn.execute(f"DELETE FROM public.{table}")
                conn.execute("DROP SCHEMA demo CASCADE")
            else:
                try:
                    conn.execute((_SQL / "tables.sql").read_text())
                except psycopg.errors.DuplicateTable as error:
                    raise DemoError(
                        f"database {conn.info.dbname} has tables that the demo did not make "
                        f"({str(error).splitlines()[0]}): load into an empty database"
                    ) from error
            conn.execute((_SQL / "replay.sql").read_text())
            rows = _fill(conn, from_day, progress)
            conn.execute("CALL demo.plan_events()")
            conn.execute(
                "INSERT INTO demo.replay_state (from_day, virtual_time) VALUES (%(day)s, %(day)s::date::timestamptz)",
                {"day": from_day},
            )
            tables = [f"public.{table}" for table in TABLES] + ["demo.flights", "demo.weather", "demo.events"]
            conn.execute(f"ANALYZE {', '.join(tables)}")
        return LoadReport(from_day, True, rows, read_position(conn).total_events, time.monotonic() - started)
