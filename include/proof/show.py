"""A report for people."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from include.proof.report import KINDS, Comparison, Report

STYLES = {"equal": "green", "different": "bold red", "not published": "yellow"}


def table(report: Report) -> Table:
    """One line for each table and pair of stores."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    made.add_column("table")
    made.add_column("stores")
    for name in ("rows", *KINDS, "settled", "moving", "seconds"):
        made.add_column(name, justify="right")
    made.add_column("state")
    for comparison in report.comparisons:
        made.add_row(*_cells(comparison))
    return made


def _cells(comparison: Comparison) -> list[Text]:
    published = comparison.state != "not published"
    rows = dict.fromkeys((comparison.left_rows, comparison.right_rows))
    figures = [
        " / ".join(f"{count:,}" for count in rows),
        *(f"{getattr(comparison, kind).count:,}" for kind in KINDS),
        f"{comparison.settled:,}",
        f"{comparison.moving:,}",
        " + ".join(f"{seconds:.1f}" for seconds in comparison.seconds.values()),
    ]
    return [
        Text(comparison.table),
        Text(f"{comparison.left} → {comparison.right}"),
        *(Text(figure if published else "") for figure in figures),
        Text(comparison.state, style=STYLES[comparison.state]),
    ]


def summary(report: Report) -> Text:
    """The verdict with what it rests on."""
    style = "bold red" if report.unresolved else "bold green"
    at = f" · {report.source} at LSN {report.snapshot_lsn}, in {report.seconds['total']:.0f} s"
    again = f", {report.settled:,} keys in flight settled in {report.rounds} rounds" if report.rounds else ""
    return Text.assemble((f"{report.verdict}: {report.unresolved:,} unresolved", style), at, again)
