"""The table of services by layer that ``up`` and ``down`` show."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from include.cli.console import Board, is_live, seconds
from include.platform.catalog import BY_NAME
from include.platform.jre import LEFT_OUT

WAITING = "waiting"
DONE = ("healthy", "works", "stopped")
BAD = ("failed", "skipped", "unhealthy")
NEUTRAL = (WAITING, LEFT_OUT)


@dataclass
class _Row:
    state: str = WAITING
    note: str = ""
    since: float = 0.0
    took: float | None = None


class ServiceBoard:
    """What each service is doing; a context manager around the work.

    :meth:`set` may be called as often as one likes: only changes are shown. Seconds count from a
    service's first change until it ends in a state of :data:`DONE` or :data:`BAD`, or is left out.
    """

    def __init__(self, title: str, names: Iterable[str]) -> None:
        self.title = title
        self.rows = {name: _Row() for name in names}
        self._spinner = Spinner("dots", style="yellow")
        self._board = Board(self._draw)

    def __enter__(self) -> Self:
        if not is_live():
            self._board.changed(self.title)
        self._board.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._board.__exit__(kind, error, trace)

    @property
    def elapsed(self) -> float:
        return self._board.elapsed

    def set(self, name: str, state: str, note: str = "", took: float | None = None) -> None:
        """``took`` overrides the seconds measured here, when somebody else measured them better."""
        row = self.rows[name]
        if row.state == state:
            row.note = note
            return
        now = time.monotonic()
        if row.state == WAITING:
            row.since = now
        row.state, row.note = state, note
        row.took = (now - row.since if took is None else took) if state in (*DONE, *BAD, LEFT_OUT) else None
        after = f" after {seconds(row.took)}" if row.took else ""
        self._board.changed(f"{BY_NAME[name].layer:<12}{name:<23}{state}{after}{f'  {note}' if note else ''}")

    def _draw(self) -> Table:
        table = Table(
            title=f"{self.title}  [dim]{seconds(self._board.elapsed)}[/]",
            title_justify="left",
            box=None,
            pad_edge=False,
            expand=True,
        )
        table.add_column("layer", style="dim", no_wrap=True)
        table.add_column("service", no_wrap=True)
        table.add_column("", width=1)
        table.add_column("state", no_wrap=True)
        table.add_column("time", justify="right", no_wrap=True)
        table.add_column("", style="dim", no_wrap=True, overflow="ellipsis", ratio=1)
        layer = ""
        for name, row in self.rows.items():
            svc = BY_NAME[name]
            mark, style = self._mark(row.state)
            took = row.took if row.took is not None else time.monotonic() - row.since if row.since else None
            table.add_row(
                svc.layer if svc.layer != layer else "",
                Text(svc.title),
                mark,
                Text(row.state, style=style),
                seconds(took) if took is not None else "",
                Text(row.note),
            )
            layer = svc.layer
        return table

    def _mark(self, state: str) -> tuple[Text | Spinner, str]:
        if state in NEUTRAL:
            return Text("·", style="dim"), "dim"
        if state in DONE:
            return Text("✓", style="green"), "green"
        if state in BAD:
            return Text("✗", style="red"), "red"
        return self._spinner, "yellow"
