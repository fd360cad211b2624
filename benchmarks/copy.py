"""Iceberg → ClickHouse, rows a second, beside ClickHouse reading the same Parquet files from its own disk.

The table is the flights several times over, written by Trino; the copy is what a serving model does. Run in turns, so
that both meet the same machine.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

from benchmarks.machine import show, spread
from include.cdc.pipelines import by_source
from include.lake.catalog import BUCKET, Lake
from include.lake.s3 import s3_client
from include.platform import trino
from include.platform.endpoints import Endpoints, local_endpoints
from include.platform.settings import settings
from include.serving import clickhouse
from include.serving.publish import pin

TIMES = 10
RUNS = 5
NAMESPACE = "benchmark"


def measure() -> dict[str, Any]:
    """``{rows, lake_s, local_s, ratio}``: spreads in seconds of each way, and the ratio of their medians."""
    endpoints = local_endpoints()
    lake = Lake.from_endpoints(endpoints)
    name = f"copy_{uuid.uuid4().hex[:8]}"
    table = f"{NAMESPACE}.{name}"
    files = settings.data("clickhouse") / "user_files" / name
    with trino.connect(endpoints, "lake", timeout_s=600) as connection, clickhouse.connect(endpoints, timeout_s=600) as client:
        cursor = connection.cursor()
        try:
            rows = _write(cursor, table)
            at = pin(lake, [table]).tables[table]
            _download(endpoints, at.url, files)
            sources = {
                "lake": f"icebergS3(lake_s3, url = '{at.url}', SETTINGS iceberg_metadata_file_path = '{at.metadata}')",
                "local": f"file('{files}/*.parquet', Parquet)",
            }
            client.command(f"CREATE DATABASE IF NOT EXISTS {NAMESPACE} ENGINE = Atomic")
            took: dict[str, list[float]] = {way: [] for way in sources}
            for _ in range(RUNS):
                for way, source in sources.items():
                    took[way].append(_copy(client, f"{NAMESPACE}.{name}", source, rows))
        finally:
            cursor.execute(f"DROP TABLE IF EXISTS {table}").fetchall()
            client.command(f"DROP DATABASE IF EXISTS {NAMESPACE}")
            for path in files.glob("*.parquet"):
                path.unlink()
    spreads = {f"{way}_s": spread(seconds) for way, seconds in took.items()}
    ratio = round(spreads["lake_s"]["median"] / spreads["local_s"]["median"], 2)
    lines = [(way, *values.values(), round(rows / values["median"])) for way, values in spreads.items()]
    show(f"{rows:,} rows into a MergeTree", lines, ("from", "min, s", "median, s", "max, s", "rows/s"))
    show("Ratio of the medians", [(ratio,)], ("lake / local",))
    return {"rows": rows, **spreads, "ratio": ratio}


def _write(cursor: Any, table: str) -> int:
    flights = by_source("flights").iceberg_table("public.flights")
    cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {NAMESPACE}").fetchall()
    many = f"SELECT f.*, n FROM {flights} f CROSS JOIN UNNEST(sequence(1, {TIMES})) AS t (n)"
    cursor.execute(f"CREATE TABLE {table} AS {many}").fetchall()
    cursor.execute(f"SELECT count(*) FROM {table}")
    return cursor.fetchone()[0]


def _download(endpoints: Endpoints, url: str, files: Path) -> None:
    client = s3_client(endpoints["shudl_s3"])
    files.mkdir(parents=True, exist_ok=True)
    prefix = url.split(f"/{BUCKET}/", 1)[1] + "/data/"
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix):
        for item in page["Contents"]:
            client.download_file(BUCKET, item["Key"], str(files / item["Key"].rsplit("/", 1)[1]))


def _copy(client: Any, table: str, source: str, rows: int) -> float:
    started = time.monotonic()
    client.command(f"CREATE TABLE {table} ENGINE = MergeTree ORDER BY tuple() AS SELECT * FROM {source}")
    took = time.monotonic() - started
    (found,) = client.query(f"SELECT count() FROM {table}").result_rows[0]
    client.command(f"DROP TABLE {table} SYNC")
    if found != rows:
        raise RuntimeError(f"{found:,} of {rows:,} rows came from {source}")
    return took
