"""``platform_bootstrap`` with every service down, until each functional check has passed: seconds by service."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

from benchmarks.machine import show, spread
from include.cli.up import down, up
from include.platform.airflow import AirflowClient
from include.platform.evidence import latest_evidence

RUNS = 3
DEEDS = ("start", "healthy", "works")


def measure() -> dict[str, Any]:
    """``{total_s, services: {name: {start, healthy, works}}}``: spread of the runs, medians in seconds."""
    up(quiet=True)
    totals: list[float] = []
    seen: list[dict[str, Any]] = []
    with AirflowClient() as airflow:
        for _ in range(RUNS):
            down(keep_airflow=True)
            started = time.monotonic()
            run_id = airflow.trigger("platform_bootstrap")
            state = airflow.wait("platform_bootstrap", run_id, 600)
            totals.append(time.monotonic() - started)
            if state != "success":
                raise RuntimeError(f"platform_bootstrap {run_id} is {state}: {airflow.failures('platform_bootstrap', run_id)}")
            seen.append((latest_evidence("platform_bootstrap") or {})["services"])
    services = {
        name: {deed: round(median(run[name][deed]["seconds"] or 0.0 for run in seen), 2) for deed in DEEDS} for name in seen[0]
    }
    show("Bootstrap, medians in seconds", [(name, *deeds.values()) for name, deeds in services.items()], ("service", *DEEDS))
    figures = spread(totals)
    show("All", [tuple(figures.values())], tuple(figures))
    return {"total_s": figures, "services": services}
