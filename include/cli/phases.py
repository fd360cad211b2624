"""The phases of a long command: what is being done, and how long each took."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.table import Table

from include.cli.console import say, seconds

STARTED_AT = "SHUDL_STARTED_AT"
"""Set by the launcher: seconds since 1970 at which the user's command began, before anything was installed."""


class Phases:
    """Times named phases; ``with phases("Load the flights"): …`` prints its begin and its end.

    What the launcher did before this program counts as the phase ``Install``.
    """

    def __init__(self) -> None:
        self.took: dict[str, float] = {}
        self._started = time.monotonic()
        before = time.time() - float(os.environ.get(STARTED_AT) or time.time())
        if before >= 1:
            self.took["Install"] = before
            self._started -= before

    @contextmanager
    def __call__(self, title: str) -> Iterator[None]:
        say(f"[bold]▸ {title}[/]")
        started = time.monotonic()
        try:
            yield
        except BaseException:
            say(f"[red]✗[/] {title} [dim]after {seconds(time.monotonic() - started)}[/]")
            raise
        self.took[title] = time.monotonic() - started
        say(f"[green]✓[/] {title} [dim]{seconds(self.took[title])}[/]")

    @property
    def total(self) -> float:
        """Seconds since the user's command began."""
        return time.monotonic() - self._started

    def table(self) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column()
        table.add_column(justify="right")
        for title, took in self.took.items():
            table.add_row(title, seconds(took))
        table.add_row("[bold]all[/]", f"[bold]{seconds(self.total)}[/]")
        return table
