"""Connector → Kafka, rows a second and CPU-seconds a million rows, beside the connector alone, whose output nobody reads.

airbyte-source-faker, purchases and users, each run anew from nothing. What a user would pick for the connector instead,
PyAirbyte, has the same process below it: what the connector alone costs is the least that either can.
"""

from __future__ import annotations

import resource
import time
import uuid
from collections.abc import Callable
from typing import Any

from benchmarks.machine import show, spread
from include.ingest.airbyte import extract, plan
from include.ingest.connectors import install
from include.ingest.sources import AirbytePipeline
from include.platform.endpoints import local_endpoints

COUNT, RUNS = 100_000, 3
CONFIG = {"count": COUNT, "seed": 1, "parallelism": 1, "records_per_slice": 10_000, "always_updated": True}


def measure() -> dict[str, Any]:
    """By way: ``{seconds, rows_per_s, cpu_s_per_million}``, and the ratio of the medians."""
    endpoints = local_endpoints()
    ways: dict[str, Callable[[], int]] = {"Kafka": lambda: _to_kafka(endpoints), "nothing": _to_nothing}
    install(_pipeline("warm"), print)
    took: dict[str, list[tuple[float, float, int]]] = {way: [] for way in ways}
    for _ in range(RUNS):
        for way, run in ways.items():
            began, cpu = time.monotonic(), _cpu()
            rows = run()
            took[way].append((time.monotonic() - began, _cpu() - cpu, rows))
    figures: dict[str, Any] = {}
    for way, runs in took.items():
        seconds = spread([run[0] for run in runs])
        cpu = spread([run[1] / run[2] * 1e6 for run in runs])["median"]
        figures[way] = {"rows": runs[0][2], "seconds": seconds, "rows_per_s": round(runs[0][2] / seconds["median"])}
        figures[way]["cpu_s_per_million"] = cpu
    figures["ratio"] = round(figures["Kafka"]["seconds"]["median"] / figures["nothing"]["seconds"]["median"], 2)
    told = {way: figures[way] for way in ways}
    rows = [(way, f["seconds"]["median"], f["rows_per_s"], f["cpu_s_per_million"]) for way, f in told.items()]
    show(f"airbyte-source-faker, {figures['Kafka']['rows']:,} rows", rows, ("into", "median, s", "rows/s", "CPU-s / million"))
    show("Ratio of the medians", [(figures["ratio"],)], ("Kafka / nothing",))
    return figures


def _pipeline(name: str) -> AirbytePipeline:
    streams = {stream: {"table": f"benchmark_{name}_{stream}"} for stream in ("users", "purchases")}
    return AirbytePipeline.model_validate(
        {
            **{"kind": "airbyte", "source": f"benchmark_{name}", "connector": "airbyte-source-faker", "version": "7.2.1"},
            **{"config": CONFIG, "streams": streams},
        }
    )


def _to_kafka(endpoints: Any) -> int:
    told = extract(_pipeline(uuid.uuid4().hex[:8]), endpoints, "benchmark", print)
    return sum(stream["records"] for stream in told["streams"].values())


def _to_nothing() -> int:
    pipeline = _pipeline("nothing")
    connector = install(pipeline, print)
    connector.validate(CONFIG)
    connector.check(CONFIG)
    plans = plan(pipeline, connector.discover(CONFIG))
    with connector.read(CONFIG, {"streams": [each.configured for each in plans.values()]}, [], print) as messages:
        return sum(message["type"] == "RECORD" for message in messages)


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)
