"""Cosmos's run of the dbt project in ``publish_flights`` beside a plain ``dbt build`` of the same models and tests.

Both targets; the same variables, threads and partial parse; in turns. Cosmos's time is that of the two task groups,
from the first task's start to the last one's end, without the pinning and the exchange between and after them.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
import uuid
from typing import Any

from benchmarks.machine import show, spread
from include.cli.dags import span
from include.lake.catalog import Lake
from include.platform.airflow import AirflowClient
from include.platform.endpoints import Endpoints, local_endpoints
from include.serving import dbt
from include.serving.publish import pin

RUNS = 3
GROUPS = {"marts": "trino", "serving": "clickhouse"}


def measure() -> dict[str, Any]:
    """``{cosmos_s, plain_s, ratio}`` for each target and for both together."""
    endpoints = local_endpoints()
    took: dict[str, dict[str, list[float]]] = {group: {"cosmos": [], "plain": []} for group in GROUPS}
    with AirflowClient() as airflow:
        for _ in range(RUNS):
            for group, seconds in _cosmos(airflow).items():
                took[group]["cosmos"].append(seconds)
            for group, target in GROUPS.items():
                took[group]["plain"].append(_plain(endpoints, target))
    both = {way: [sum(pair) for pair in zip(*(took[group][way] for group in GROUPS), strict=True)] for way in ("cosmos", "plain")}
    figures = {}
    for name, ways in {**took, "both": both}.items():
        spreads = {f"{way}_s": spread(seconds) for way, seconds in ways.items()}
        ratio = round(spreads["cosmos_s"]["median"] / spreads["plain_s"]["median"], 2)
        figures[name] = {**spreads, "ratio": ratio}
    rows = [(name, f["cosmos_s"]["median"], f["plain_s"]["median"], f["ratio"]) for name, f in figures.items()]
    show("dbt, medians in seconds", rows, ("", "Cosmos", "plain dbt build", "ratio"))
    return figures


def _cosmos(airflow: AirflowClient) -> dict[str, float]:
    run_id = airflow.trigger("publish_flights")
    if (state := airflow.wait("publish_flights", run_id, 900)) != "success":
        raise RuntimeError(f"publish_flights {run_id} is {state}: {airflow.failures('publish_flights', run_id)}")
    tasks = airflow.task_instances("publish_flights", run_id)
    spans = {group: span([task for task in tasks if task["task_id"].startswith(f"{group}.")]) for group in GROUPS}
    return {group: seconds for group, seconds in spans.items() if seconds is not None}


def _plain(endpoints: Endpoints, target: str) -> float:
    tables = {table for tables in dbt.served_tables().values() for table in tables}
    pinned = pin(Lake.from_endpoints(endpoints), tables).for_dbt(f"benchmark_{uuid.uuid4().hex[:8]}")
    env = {**os.environ, **dbt.environment(endpoints), "SHUDL_PINNED": pinned}
    env["DBT_PARTIAL_PARSE_FILE_PATH"] = str(dbt.folder(target) / dbt.PARTIAL_PARSE)
    command = [str(dbt.executable()), "build", "--target", target, "--profiles-dir", str(dbt.PROJECT)]
    command += ["--exclude", "tag:aircraft"]  # as publish_flights does
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        done = subprocess.run([*command, "--target-path", folder], cwd=dbt.PROJECT, env=env, capture_output=True, text=True)
        took = time.monotonic() - started
    if done.returncode:
        raise RuntimeError(f"dbt build --target {target}:\n{done.stdout[-3000:]}")
    return took
