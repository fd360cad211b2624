"""Landing a CSV file of 514 MB, rows and CPU-seconds a million rows, beside DuckDB, PyIceberg and dlt with the same file.

The file lies in the landing bucket; the tables are Iceberg's in the platform's catalogue (dlt has one of its own). Each way is
a fresh process that has imported what it needs before its time begins; they take turns, so that all meet the same machine.
``ingest_landing`` is paused meanwhile: it would load the file as well.
The others get an environment of their own, from PyPI, at first use.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.machine import show, spread
from include.demo.dataset import read
from include.lake.catalog import LANDING, Lake
from include.lake.s3 import ensure_buckets, s3_client
from include.platform.airflow import AirflowClient
from include.platform.endpoints import local_endpoints
from include.platform.settings import ROOT, settings

RUNS = 3
BYTES = 514_000_000
FOLDER = "benchmark_csv"
DAG = "ingest_landing"
NEEDS = (
    *(f"duckdb{name}==1.5.5" for name in ("", "-extension-iceberg", "-extension-httpfs", "-extension-avro")),
    "dlt==1.31.0",
    "pyiceberg[pyarrow,s3fs,sql-sqlite]==0.12.0",
)
WAYS = Path(__file__).with_name("landing_csv_ways.py")


def measure() -> dict[str, Any]:
    """``{rows, bytes, ways: {way: {wall_s, cpu_s_per_million}}, ratio}``; the ratio is to the best of the others."""
    endpoints, folder = local_endpoints(), settings.data("benchmark")
    s3 = s3_client(endpoints["shudl_s3"])
    ensure_buckets(s3, LANDING)
    rows = _file(folder / "file.csv")
    python = _environment(folder)
    took: dict[str, list[dict[str, float]]] = {way: [] for way in ("landing", "duckdb", "pyiceberg", "dlt")}
    with AirflowClient() as airflow:
        airflow.pause(DAG)
        try:
            for _ in range(RUNS):
                path = f"{FOLDER}_{uuid.uuid4().hex[:8]}/file.csv"
                s3.upload_file(str(folder / "file.csv"), LANDING, path)
                try:
                    for way in took:
                        took[way].append(_run(way, sys.executable if way == "landing" else python, path, rows))
                finally:
                    s3.delete_object(Bucket=LANDING, Key=path)
        finally:
            airflow.unpause(DAG)
    ways = {
        way: {
            "wall_s": spread([run["wall_s"] for run in runs]),
            "cpu_s_per_million": round(median(run["cpu_s"] for run in runs) / rows * 1e6, 2),
            "peak_mb": round(max(run["peak_mb"] for run in runs)),
        }
        for way, runs in took.items()
    }
    best = {key: min(ways[way]["wall_s"][key] for way in ways if way != "landing") for key in ("min", "median")}
    ratio = {key: round(ways["landing"]["wall_s"][key] / best[key], 2) for key in best}
    lines = [
        (way, *seen["wall_s"].values(), round(rows / seen["wall_s"]["median"]), seen["cpu_s_per_million"], seen["peak_mb"])
        for way, seen in ways.items()
    ]
    show(
        f"{rows:,} rows, {BYTES / 1e6:.0f} MB of CSV, into Iceberg",
        lines,
        ("by", "min, s", "median, s", "max, s", "rows/s", "CPU-s/million rows", "peak, MB"),
    )
    show("Landing / the best of the others", [(ratio["min"], ratio["median"])], ("by the fastest runs", "by medians"))
    return {"rows": rows, "bytes": BYTES, "ways": ways, "ratio": ratio}


def _file(path: Path) -> int:
    """The flights of the demo, over and over, with nothing where they have ``NA``; how many rows."""
    flights = read("flights")
    lines = [line.replace(",NA", ",").replace(",NA", ",").encode() for line in flights.lines]
    size = rows = 0
    with path.open("wb") as file:
        size += file.write(",".join(flights.columns).encode() + b"\n")
        while size < BYTES:
            for line in lines:
                size += file.write(line)
                rows += 1
                if size >= BYTES:
                    break
    return rows


def _environment(folder: Path) -> str:
    python = folder / "env" / "bin" / "python"
    uv = settings.envs / "tools" / "bin" / "uv"
    if not python.exists():
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, python.parents[1]], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *NEEDS], check=True)
    return str(python)


def _run(way: str, python: str, path: str, rows: int) -> dict[str, float]:
    """One way, once; what it says of itself."""
    endpoints = local_endpoints()
    lake = Lake.from_endpoints(endpoints)
    task = {
        "way": way,
        "path": path,
        "table": f"benchmark.{way}_{uuid.uuid4().hex[:8]}",
        "catalog": lake.catalog_uri,
        "s3": lake.s3_endpoint,
        "key": lake.s3_access_key,
        "secret": lake.s3_secret_key,
        "folder": str(settings.data("benchmark")),
    }
    done = subprocess.run(
        [python, "-P", str(WAYS)], input=json.dumps(task), capture_output=True, text=True, timeout=900, cwd=ROOT, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{way}: {done.stderr[-2000:]}")
    said = json.loads(done.stdout.splitlines()[-1])
    if said["rows"] != rows:
        raise RuntimeError(f"{way} made {said['rows']:,} rows of {rows:,}")
    return said


