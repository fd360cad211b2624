"""The expectation that other tests rely on, held to examples worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import duckdb
import pytest

from tests import expected_flights as expected

FROM_DAY = date(2013, 12, 27)


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with expected.open_csv() as con:
        yield con


@pytest.mark.parametrize("flight_id", expected.EXAMPLES)
def test_events_of_a_flight(con: duckdb.DuckDBPyConnection, flight_id: int) -> None:
    rows = expected.events(con, FROM_DAY).filter(f"flight_id = {flight_id}").project("kind, moment").fetchall()
    local = [(kind, f"{moment - timedelta(hours=5):%Y-%m-%d %H:%M}") for kind, moment in rows]
    assert local == expected.EXAMPLES[flight_id]


def state(con: duckdb.DuckDBPyConnection, flight_id: int, hour: int, minute: int) -> list[tuple[object, ...]]:
    """The flight's changing columns at an hour of December 29 in UTC (hours above 23 are on the 30th)."""
    moment = datetime(2013, 12, 29, tzinfo=UTC) + timedelta(hours=hour, minutes=minute)
    flights = expected.flights_at(con, FROM_DAY, moment).filter(f"id = {flight_id}")
    return flights.project("dep_time, dep_delay, arr_time, arr_delay, air_time").fetchall()


def test_a_flight_from_schedule_to_arrival(con: duckdb.DuckDBPyConnection) -> None:
    assert state(con, 108666, 27, 29) == []
    assert state(con, 108666, 27, 30) == [(None, None, None, None, None)]
    assert state(con, 108666, 29, 38) == [(None, None, None, None, None)]
    assert state(con, 108666, 29, 39) == [(39, 69, None, None, None)]
    assert state(con, 108666, 33, 31) == [(39, 69, None, None, None)]
    assert state(con, 108666, 33, 32) == [(39, 69, 530, 81, 203)]


def test_a_flight_that_never_left_goes(con: duckdb.DuckDBPyConnection) -> None:
    assert state(con, 109535, 17, 5) == [(None, None, None, None, None)]
    assert state(con, 109535, 17, 6) == []


def test_before_the_first_event_the_days_before_are_complete(con: duckdb.DuckDBPyConnection) -> None:
    flights = expected.flights_after(con, FROM_DAY, 0)
    assert flights.aggregate("count(*), count(dep_time)").fetchall() == [(332367, 324163)]
    assert expected.weather_after(con, FROM_DAY, 0).aggregate("count(*)").fetchall() == [(25842,)]


def test_after_the_last_event_all_that_left_are_there(con: duckdb.DuckDBPyConnection) -> None:
    flights = expected.flights_after(con, FROM_DAY, 10**6)
    left = con.sql("FROM flights WHERE make_date(year, month, day) < DATE '2013-12-27' OR dep_time NOTNULL")
    assert sorted(flights.fetchall()) == sorted(left.fetchall())
    assert sorted(expected.weather_after(con, FROM_DAY, 10**6).fetchall()) == sorted(con.sql("FROM weather").fetchall())
