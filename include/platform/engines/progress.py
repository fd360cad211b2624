"""Shows work in flight on stderr: live bars on a terminal, else a line when a row starts, now and then, and at its end."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import AbstractContextManager

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

from include.platform.engines.errors import Cancelled

PLAIN_EVERY_S = 15


class _Amount(ProgressColumn):
    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text("")
        speed = f"  {decimal(int(task.speed))}/s" if task.speed else ""
        return Text(f"{decimal(int(task.completed))} of {decimal(int(task.total))}{speed}", style="cyan")


class Row:
    """One environment or engine. Its methods may be called from any thread and raise :class:`Cancelled` to end it."""

    def __init__(self, progress: Progress, name: str) -> None:
        self.name = name
        self._progress = progress
        self._began = time.monotonic()
        self._note, self._done, self._total = "", 0, 0
        self._phase = self._shown = self._began
        self._task = progress.bars.add_task(name, total=None, note="", visible=False)

    def start(self, note: str, total: int | None = None) -> None:
        """Begins a phase, of ``total`` bytes if that is known."""
        self._progress.check()
        self._note, self._done, self._total = note, 0, total or 0
        self._progress.bars.reset(self._task, total=total, note=note, visible=True)
        size = f" ({decimal(total)})" if total else ""
        self._progress.plain(f"{self.name}: {note}{size}")
        self._phase = self._shown = time.monotonic()

    def note(self, note: str) -> None:
        self._progress.check()
        self._note = note
        self._progress.bars.update(self._task, note=note)
        self._heartbeat()

    def advance(self, count: int) -> None:
        """``count`` more bytes of the phase are done."""
        self._progress.check()
        self._done += count
        self._progress.bars.advance(self._task, count)
        self._heartbeat()

    def finish(self, text: str) -> None:
        self._progress.bars.remove_task(self._task)
        self._progress.bars.refresh()
        took = time.monotonic() - self._began
        self._progress.console.print(f"[green]✓[/] {self.name}: {text} [dim]({took:.0f} s)[/]", highlight=False)

    def _heartbeat(self) -> None:
        now = time.monotonic()
        if now - self._shown > PLAIN_EVERY_S:
            self._shown = now
            rate = decimal(int(self._done / (now - self._phase)))
            amount = f" {decimal(self._done)} of {decimal(self._total)}, {rate}/s" if self._total else ""
            self._progress.plain(f"{self.name}: {self._note}{amount}")


class Progress(AbstractContextManager):
    """The rows on the screen, and the switch that ends all of them."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self.console = Console(stderr=True, force_terminal=self.live, soft_wrap=not self.live)
        self.bars = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(20),
            _Amount(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, ratio=1)),
            console=self.console,
            transient=True,
            expand=True,
            disable=not self.live,
        )
        self._cancelled = threading.Event()

    def __enter__(self) -> Progress:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def row(self, name: str) -> Row:
        return Row(self, name)

    def plain(self, line: str) -> None:
        if not self.live:
            self.console.print(line, highlight=False, markup=False)

    def cancel(self) -> None:
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def check(self) -> None:
        if self.cancelled:
            raise Cancelled
