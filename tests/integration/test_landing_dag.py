"""A file that is put into the bucket starts what loads it, which starts what reads it."""

from __future__ import annotations

import io
import time

import duckdb

from include.demo.dataset import path
from include.ingest.landing import put
from include.platform import trino
from include.serving import clickhouse
from tests.live import Platform


def test_a_file_starts_its_loading(platform: Platform) -> None:
    folder = f"arrives_{time.monotonic_ns() % 10**6}"
    platform.airflow.unpause("ingest_landing")
    put(platform.endpoints, folder, "a.csv", io.BytesIO(b"id,name\n1,x\n2,y\nthree,z\n"))

    def visible() -> bool:
        with trino.connect(platform.endpoints, "lake") as connection:
            cursor = connection.cursor()
            cursor.execute(f"SHOW TABLES FROM raw LIKE '{folder}'")
            return bool(cursor.fetchall())

    platform.eventually(visible, 120, f"raw.{folder} is there")
    assert platform.in_lake(f"SELECT id, _line FROM raw.{folder} ORDER BY _line") == [("1", 2), ("2", 3), ("three", 4)]


def test_landed_files_are_published(published: Platform) -> None:
    before = {run["dag_run_id"] for run in published.airflow.runs("publish_aircraft")}
    with path("planes").open("rb") as file:
        put(published.endpoints, "aircraft", "planes.csv", file)
    published.airflow.unpause("ingest_landing")
    published.airflow.unpause("publish_aircraft")

    def started() -> list[dict]:
        runs = published.airflow.runs("publish_aircraft")
        return [run for run in runs if run["dag_run_id"] not in before and run["run_type"] == "asset_triggered"]

    published.eventually(started, 180, "publish_aircraft was started by raw.aircraft")
    published.wait_dag("publish_aircraft", started()[0]["dag_run_id"], 300)
    flown = published.in_lake("SELECT tailnum, count(*) FROM intermediate.int_flights WHERE tailnum IS NOT NULL GROUP BY 1")
    maker = dict(duckdb.sql(f"SELECT tailnum, manufacturer FROM read_csv('{path('planes')}')").fetchall())
    expected: dict[str, int] = {}
    for tailnum, count in flown:
        expected[maker.get(tailnum, "unknown")] = expected.get(maker.get(tailnum, "unknown"), 0) + count
    with clickhouse.connect(published.endpoints) as client:
        found = client.query("SELECT manufacturer, sum(flights) FROM serving.otp_by_aircraft GROUP BY manufacturer").result_rows
    assert dict(found) == expected
