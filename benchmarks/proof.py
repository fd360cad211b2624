"""The proof of the flights over all tables and stores, while the source stands still and while it changes."""

from __future__ import annotations

from typing import Any

from benchmarks.machine import show, spread
from benchmarks.traffic import traffic
from include import proof
from include.cdc.pipelines import by_source
from include.platform.endpoints import local_endpoints

RUNS = 3
RATE = 1000


def measure() -> dict[str, Any]:
    """``{quiet_s, under_traffic_s, rows}``: spreads in seconds; rows compared."""
    endpoints, pipeline = local_endpoints(), by_source("flights")

    def prove() -> proof.Report:
        report = proof.prove(pipeline, endpoints)
        if report.unresolved:
            raise RuntimeError(report.text())
        return report

    quiet = [prove() for _ in range(RUNS)]
    with traffic(endpoints, RATE):
        moving = [prove() for _ in range(RUNS)]
    figures = {
        "quiet_s": spread([report.seconds["total"] for report in quiet]),
        "under_traffic_s": spread([report.seconds["total"] for report in moving]),
        "rows": sum(comparison.right_rows for comparison in quiet[0].comparisons),
    }
    rows = [(name, *figures[name].values()) for name in ("quiet_s", "under_traffic_s")]
    show(f"Proof of {figures['rows']:,} rows, seconds", rows, ("", "min", "median", "max"))
    return figures
