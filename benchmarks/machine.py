"""What the figures were measured on, and how they are summed up."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

import psutil
from rich.table import Table

from include.cli.console import out


def facts() -> dict[str, Any]:
    """Cores, memory in GiB, kernel, and the load average at the end of the run."""
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(terse=True),
        "load": os.getloadavg()[0],
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """``{min, median, max}`` of seconds."""
    return {"min": round(min(values), 2), "median": round(median(values), 2), "max": round(max(values), 2)}


def percentile(weighted: Iterable[tuple[float, int]], share: float) -> float:
    """The value below which ``share`` of the weight lies; ``weighted`` are ``(value, weight)``."""
    ordered = sorted(weighted)
    left = share * sum(weight for _, weight in ordered)
    for value, weight in ordered:
        left -= weight
        if left <= 0:
            return value
    raise ValueError("no values")


def show(title: str, rows: Sequence[Sequence[object]], columns: Sequence[str]) -> None:
    """Print a table; figures to the right."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*(f"{cell:,.2f}" if isinstance(cell, float) else str(cell) for cell in row))
    out.print(f"\n[bold]{title}[/]")
    out.print(table)
