"""One way of loading a CSV file from S3 into a new Iceberg table: see :mod:`benchmarks.landing_csv`, which starts this.

Reads the task from its input and prints ``{rows, wall_s, cpu_s, peak_mb}``. No module of ShuDL is imported but for its own way.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Task = dict[str, str]
Way = Callable[[], int]
BUFFER = 16 << 20
"""Bytes that PyArrow asks S3 for at a time: without it, as many as it parses at a time, which takes four times as long."""


def by_landing(task: Task) -> Way:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from include.ingest import landing
    from include.platform.endpoints import local_endpoints

    endpoints, folder = local_endpoints(), task["path"].partition("/")[0]

    def load() -> int:
        report = landing.load(endpoints, folder, "benchmark")
        if report.failed:
            raise RuntimeError(str(report.failed))
        return sum(file["rows_written"] for file in report.files)

    return load


def by_duckdb(task: Task) -> Way:
    import duckdb

    database = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    for name in ("httpfs", "avro", "iceberg"):
        module = __import__(f"duckdb_extension_{name}")
        (file,) = Path(module.__file__).parent.rglob(f"{name}.duckdb_extension")
        database.execute(f"LOAD '{file}'")
    database.execute(
        f"CREATE SECRET (TYPE s3, KEY_ID '{task['key']}', SECRET '{task['secret']}', REGION 'us-east-1', URL_STYLE 'path', "
        f"ENDPOINT '{task['s3'].partition('://')[2]}', USE_SSL {str(task['s3'].startswith('https')).lower()})"
    )
    options = "TYPE iceberg, AUTHORIZATION_TYPE 'none', ACCESS_DELEGATION_MODE 'none'"
    database.execute(f"ATTACH 'lake' AS lake ({options}, ENDPOINT '{task['catalog']}')")
    database.execute("CREATE SCHEMA IF NOT EXISTS lake.benchmark")

    def load() -> int:
        table = f"lake.{task['table']}"
        database.execute(f"CREATE TABLE {table} AS SELECT * FROM read_csv('s3://landing/{task['path']}')")
        return database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]

    return load


def _s3_options(task: Task) -> dict[str, str]:
    return {
        "s3.endpoint": task["s3"],
        "s3.access-key-id": task["key"],
        "s3.secret-access-key": task["secret"],
        "s3.region": "us-east-1",
        "s3.path-style-access": "true",
    }


def _arrow_s3(task: Task) -> Any:
    import pyarrow.fs

    scheme, _, host = task["s3"].partition("://")
    return pyarrow.fs.S3FileSystem(
        access_key=task["key"],
        secret_key=task["secret"],
        endpoint_override=host,
        scheme=scheme,
        region="us-east-1",
    )


def by_pyiceberg(task: Task) -> Way:
    import pyarrow.csv
    from pyiceberg.catalog.rest import RestCatalog

    catalog = RestCatalog("lake", uri=f"{task['catalog']}/main", warehouse="lake", **_s3_options(task))
    catalog.create_namespace_if_not_exists("benchmark")
    s3 = _arrow_s3(task)

    def load() -> int:
        with s3.open_input_stream(f"landing/{task['path']}", buffer_size=BUFFER) as stream:
            rows = pyarrow.csv.read_csv(stream)
        columns = [
            column.with_type(pyarrow.timestamp("us", column.type.tz)) if pyarrow.types.is_timestamp(column.type) else column
            for column in rows.schema
        ]
        rows = rows.cast(pyarrow.schema(columns))
        table = catalog.create_table(task["table"], rows.schema)
        table.append(rows)
        return int(table.refresh().current_snapshot().summary["total-records"])

    return load


def by_dlt(task: Task) -> Way:
    import os

    import pyarrow.csv

    folder = f"{task['folder']}/dlt"
    os.environ.update(RUNTIME__DLTHUB_TELEMETRY="false", RUNTIME__LOG_LEVEL="ERROR", DLT_DATA_DIR=folder)
    import dlt

    name = task["table"].partition(".")[2]
    s3 = _arrow_s3(task)
    pipeline = dlt.pipeline(
        name,
        destination=dlt.destinations.filesystem(
            bucket_url="s3://lake/benchmark_dlt",
            credentials={
                "aws_access_key_id": task["key"],
                "aws_secret_access_key": task["secret"],
                "endpoint_url": task["s3"],
                "region_name": "us-east-1",
            },
        ),
        dataset_name=name,
    )

    def load() -> int:
        def rows() -> Any:
            with s3.open_input_stream(f"landing/{task['path']}", buffer_size=BUFFER) as stream:
                yield from pyarrow.csv.open_csv(stream, pyarrow.csv.ReadOptions(block_size=16 << 20))

        pipeline.run(dlt.resource(rows, name="rows"), table_format="iceberg", loader_file_format="parquet")
        return pipeline.last_trace.last_normalize_info.row_counts["rows"]

    return load


WAYS = {"landing": by_landing, "duckdb": by_duckdb, "pyiceberg": by_pyiceberg, "dlt": by_dlt}

if __name__ == "__main__":
    given = json.load(sys.stdin)
    way = WAYS[given["way"]](given)
    before, started = time.process_time(), time.monotonic()
    count = way()
    wall_s, cpu_s = time.monotonic() - started, time.process_time() - before
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rows": count, "wall_s": wall_s, "cpu_s": cpu_s, "peak_mb": peak_mb}))
