"""The age of every row when it becomes visible, at 1,000 changes a second: in Iceberg by Trino, and in ClickHouse's copy.

Trino is asked again and again for the rows that it did not show before; a row's age is the time at which the answer was
there, less the time at which PostgreSQL committed it. So the wait for the next question counts, and so does the query.
ClickHouse's copy is as fresh as its last publication: publications run one after the other, with the dbt models before.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.machine import percentile, show, spread
from benchmarks.traffic import traffic
from include.cdc.pipelines import COMMITTED_AT, LSN, by_source
from include.platform import trino
from include.platform.airflow import AirflowClient
from include.platform.endpoints import Endpoints, local_endpoints
from include.serving import clickhouse
from include.serving.publish import SERVING

RATE = 1000
WARM_UP_S, MEASURED_S = 8.0, 30.0
PUBLICATIONS = 2
SOURCE, TABLE = "flights", "public.flights"

Ages = list[tuple[float, int]]


def measure() -> dict[str, Any]:
    """``{iceberg, clickhouse}``: rows seen, p50, p99 and the greatest age in seconds; ``query_s``, what Trino took."""
    endpoints = local_endpoints()
    took: list[float] = []
    with traffic(endpoints, RATE):
        time.sleep(WARM_UP_S)
        iceberg = _iceberg(endpoints, took)
    with traffic(endpoints, RATE / 4):
        served = _clickhouse(endpoints)
    figures = {"rate": RATE, "iceberg": _summed(iceberg), "query_s": spread(took), "clickhouse": _summed(served)}
    rows = [(name, *figures[name].values()) for name in ("iceberg", "clickhouse")]
    show("Age of rows when they become visible, seconds", rows, ("store", "rows", "p50", "p99", "max"))
    return figures


def _summed(ages: Ages) -> dict[str, float]:
    return {
        "rows": sum(count for _, count in ages),
        "p50_s": round(percentile(ages, 0.5), 2),
        "p99_s": round(percentile(ages, 0.99), 2),
        "max_s": round(max(age for age, _ in ages), 2),
    }


def _iceberg(endpoints: Endpoints, took: list[float]) -> Ages:
    relation = by_source(SOURCE).iceberg_table(TABLE)
    ages: Ages = []
    last: int | None = None
    until = time.monotonic() + MEASURED_S
    with trino.connect(endpoints, "lake", timeout_s=60) as connection:
        while time.monotonic() < until:
            cursor = connection.cursor()
            asked = time.monotonic()
            since = f"WHERE {LSN} > {last}" if last is not None else ""
            cursor.execute(f"SELECT to_unixtime({COMMITTED_AT}), max({LSN}), count(*) FROM {relation} {since} GROUP BY 1")
            found = cursor.fetchall()
            now = time.time()
            took.append(time.monotonic() - asked)
            if last is not None:
                ages += [(now - committed, count) for committed, _, count in found]
            last = max((lsn for _, lsn, _ in found), default=last)
    return ages


def _clickhouse(endpoints: Endpoints) -> Ages:
    relation = f"{SERVING}.`{by_source(SOURCE).iceberg_name(TABLE)}`"
    ages: Ages = []
    with clickhouse.connect(endpoints, timeout_s=60) as client, AirflowClient() as airflow:
        for publication in range(PUBLICATIONS + 1):
            (last,) = client.query(f"SELECT max({LSN}) FROM {relation}").result_rows[0]
            run_id = airflow.trigger("publish_flights")
            if (state := airflow.wait("publish_flights", run_id, 600)) != "success":
                raise RuntimeError(f"publish_flights {run_id} is {state}: {airflow.failures('publish_flights', run_id)}")
            now = time.time()
            if publication:  # the first one shows rows that waited for it before the traffic began
                committed_ms = f"toUnixTimestamp64Milli({COMMITTED_AT})"
                new = client.query(f"SELECT {committed_ms}, count() FROM {relation} WHERE {LSN} > {last} GROUP BY 1")
                ages += [(now - committed / 1000, count) for committed, count in new.result_rows]
    return ages
