"""Rows on their way from hop to hop, with the lag of each: a live table, or a line every few seconds."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.table import Table
from rich.text import Text

from include.cli.console import Board, seconds

if TYPE_CHECKING:
    from include.cdc.status import HopReading

RATE_OVER_S = 10.0
LINE_EVERY_S = 5.0
SLOW_S = 30.0


class HopBoard:
    """Call :meth:`show` with fresh figures as often as you like, within ``with``."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._hops: list[HopReading] = []
        self._history: dict[str, deque[tuple[float, int]]] = {}
        self._told_at = 0.0
        self._told: list[HopReading] = []
        self._board = Board(self._draw)

    def __enter__(self) -> Self:
        self._board.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._line()
        self._board.__exit__(kind, error, trace)

    def show(self, hops: list[HopReading], now: float | None = None) -> None:
        """Take over new figures; ``now`` is a ``time.monotonic()``."""
        now = time.monotonic() if now is None else now
        self._hops = hops
        for hop in hops:
            if hop.rows is not None:
                history = self._history.setdefault(hop.name, deque())
                history.append((now, hop.rows))
                while len(history) > 2 and now - history[0][0] > RATE_OVER_S:
                    history.popleft()
        if now - self._told_at >= LINE_EVERY_S:
            self._told_at = now
            self._line()

    def rate(self, name: str) -> float:
        """Rows a second over the last :data:`RATE_OVER_S`, or between the last two readings; below zero where rows vanish."""
        history = self._history.get(name)
        if not history or history[-1][0] == history[0][0]:
            return 0.0
        (since, first), (until, last) = history[0], history[-1]
        return (last - first) / (until - since)

    def _line(self) -> None:
        if self._hops != self._told:
            self._told = self._hops
            self._board.changed("  →  ".join(self._brief(hop) for hop in self._hops))

    def _brief(self, hop: HopReading) -> str:
        rows = "?" if hop.rows is None else f"{hop.rows:,}"
        return f"{hop.name} {rows}" + ("" if hop.lag_s is None else f" ({hop.lag_s:.1f} s behind)")

    def _draw(self) -> Table:
        title = f"{self.title}  [dim]{seconds(self._board.elapsed)}[/]"
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")
        table.add_column("", no_wrap=True)
        for header in ("rows", "rows a second", "behind"):
            table.add_column(header, justify="right", no_wrap=True)
        for index, hop in enumerate(self._hops):
            lag = "" if hop.lag_s is None else f"{hop.lag_s:.1f} s"
            table.add_row(
                ("" if index == 0 else "→ ") + hop.name,
                "?" if hop.rows is None else f"{hop.rows:,}",
                f"{self.rate(hop.name):+,.0f}",
                Text(lag, style="yellow" if hop.lag_s and hop.lag_s > SLOW_S else "green"),
            )
        return table
