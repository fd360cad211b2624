"""What the marts must hold, computed by DuckDB from the package's CSV files, the replay's rules and the definitions alone.

Shares no code with ``dbt_project``. The definitions stand in its YAML descriptions: a flight is on time when it arrives
less than 15 minutes late; it is finished when it arrived, was diverted (landed without an arrival delay, or did not
arrive within 24 hours of its departure) or cancelled (did not depart within 24 hours of the schedule), as seen from the
newest departure; the shares on time are those of the finished flights.
"""

from __future__ import annotations

from datetime import date

import duckdb

from tests.expected_flights import flights_after, weather_after

KEYS = {
    "otp_by_carrier": ("carrier",),
    "otp_by_route": ("origin", "dest"),
    "otp_by_hour": ("origin", "scheduled_hour"),
    "delay_by_weather": ("measure", "band_no"),
    "fleet_use": ("tailnum",),
}
"""Each mart and the columns that identify its rows."""

OTP = """
    count(*) AS flights,
    count(*) FILTER (state IN ('waiting', 'flying')) AS pending,
    count(*) FILTER (state = 'arrived') AS arrived,
    count(*) FILTER (state = 'diverted') AS diverted,
    count(*) FILTER (state = 'cancelled') AS cancelled,
    count(*) FILTER (arr_delay < 15) AS on_time,
    if(count(*) = pending, NULL, count(*) FILTER (arr_delay < 15)::DOUBLE / (count(*) - pending)) AS on_time_share,
    sum(dep_delay)::DOUBLE / count(dep_delay) AS avg_dep_delay_min,
    sum(arr_delay)::DOUBLE / count(arr_delay) AS avg_arr_delay_min
"""

BANDS = """
    VALUES
    ('precipitation', 0, 'unknown', NULL, NULL),
    ('precipitation', 1, 'none', -1, 1e-9),
    ('precipitation', 2, 'under 0.1 inch', 1e-9, 0.1),
    ('precipitation', 3, '0.1 inch and more', 0.1, 1e9),
    ('visibility', 0, 'unknown', NULL, NULL),
    ('visibility', 1, 'under 1 mile', -1, 1),
    ('visibility', 2, '1 to 3 miles', 1, 3),
    ('visibility', 3, '3 to 10 miles', 3, 10),
    ('visibility', 4, '10 miles and more', 10, 1e9),
    ('wind', 0, 'unknown', NULL, NULL),
    ('wind', 1, 'under 5 mph', -1, 5),
    ('wind', 2, '5 to 15 mph', 5, 15),
    ('wind', 3, '15 to 25 mph', 15, 25),
    ('wind', 4, '25 mph and more', 25, 1e9)
"""

MARTS = {
    "otp_by_carrier": f"""
        SELECT carrier, any_value(name) AS carrier_name, {OTP} FROM seen JOIN airlines USING (carrier) GROUP BY carrier
    """,
    "otp_by_route": f"""
        SELECT origin, dest, (SELECT name FROM airports WHERE faa = dest) AS dest_name, max(distance) AS distance_miles, {OTP}
        FROM seen GROUP BY origin, dest
    """,
    "otp_by_hour": f"SELECT origin, hour AS scheduled_hour, {OTP} FROM seen GROUP BY origin, hour",
    "delay_by_weather": f"""
        WITH observed AS (
            SELECT dep_delay, unnest(['precipitation', 'visibility', 'wind']) AS measure,
                unnest([precip::DOUBLE, visib::DOUBLE, wind_speed]) AS value
            FROM seen LEFT JOIN seen_weather USING (origin, time_hour)
            WHERE dep_time NOTNULL
        )
        SELECT b.measure, b.band_no, b.band, count(*) AS departures, count(*) FILTER (dep_delay >= 15) AS delayed,
            count(*) FILTER (dep_delay >= 15)::DOUBLE / count(*) AS delayed_share,
            sum(dep_delay)::DOUBLE / count(*) AS avg_dep_delay_min
        FROM observed o JOIN ({BANDS}) b (measure, band_no, band, low, high)
            ON o.measure = b.measure AND CASE WHEN o.value ISNULL THEN b.low ISNULL ELSE o.value >= b.low AND o.value < b.high END
        GROUP BY ALL
    """,
    "fleet_use": """
        SELECT s.tailnum, p.manufacturer, p.model, p.year AS manufactured_year, p.seats, count(*) AS departures,
            count(DISTINCT (s.month, s.day)) AS days_used, count(DISTINCT dest) AS destinations, sum(distance) AS distance_miles,
            sum(air_time) AS air_time_min, sum(dep_delay)::DOUBLE / count(*) AS avg_dep_delay_min,
            min(planned + to_minutes(dep_delay)) AS first_departure_at, max(planned + to_minutes(dep_delay)) AS last_departure_at
        FROM seen s LEFT JOIN planes p USING (tailnum)
        WHERE dep_time NOTNULL AND tailnum NOTNULL
        GROUP BY ALL
    """,
}


def expected_marts(con: duckdb.DuckDBPyConnection, from_day: date, number: int) -> dict[str, list[dict[str, object]]]:
    """The rows of each mart once the replay's first ``number`` events are applied; instants are naive, in UTC.

    ``con`` comes from :func:`tests.expected_flights.open_csv`.
    """
    con.execute(f"CREATE OR REPLACE TEMP TABLE seen_weather AS {weather_after(con, from_day, number).sql_query()}")
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE seen AS
        WITH timed AS (
            SELECT *, time_hour + to_minutes(minute) AS planned FROM ({flights_after(con, from_day, number).sql_query()})
        )
        SELECT *, max(planned + to_minutes(dep_delay)) OVER () AS now,
            CASE
                WHEN dep_time ISNULL THEN if(now - planned >= INTERVAL 24 HOUR, 'cancelled', 'waiting')
                WHEN arr_delay NOTNULL THEN 'arrived'
                WHEN arr_time NOTNULL OR now - planned - to_minutes(dep_delay) >= INTERVAL 24 HOUR THEN 'diverted'
                ELSE 'flying'
            END AS state
        FROM timed
    """)
    found = {}
    for name, query in MARTS.items():
        rows = con.execute(query)
        columns = [column[0] for column in rows.description]
        found[name] = [dict(zip(columns, row, strict=True)) for row in rows.fetchall()]
    return found
