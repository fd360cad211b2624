"""What every command shares: where it prints, how it fails, and the rows that it redraws.

On a terminal a :class:`Board` is a table redrawn in place. Anywhere else (a pipe, CI) it prints one line
for each change and moves no cursor.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live

OK, FAILED, USAGE, NOT_HEALTHY, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes of every command."""

PIPE_WIDTH = 200

IN_DOCKER = os.environ.get("SHUDL_RUNTIME") == "docker"
ME = "docker compose -f docker/compose.yaml run --rm cli" if IN_DOCKER else "./shudl"
"""How people call the command line."""


class CliError(Exception):
    """Ends the command with ``text`` on standard error and ``code``."""

    def __init__(self, text: str, code: int = FAILED) -> None:
        super().__init__(text)
        self.code = code


def is_live() -> bool:
    """Whether standard output can be redrawn."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _console(stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    wide = not stream.isatty() and not os.environ.get("COLUMNS")
    return Console(stderr=stderr, highlight=False, width=PIPE_WIDTH if wide else None)


out = _console()
err = _console(stderr=True)


def say(text: str = "") -> None:
    """Print one paragraph of Rich markup; the terminal wraps it, a pipe gets it as one line."""
    out.print(text, soft_wrap=not out.is_terminal)


def next_steps(*commands: str) -> str:
    """``Next: …`` as markup: the commands in one line, or in one each where their names are long."""
    shown = [f"[bold]{ME} {command}[/]" for command in commands]
    return "\n  ".join(["Next:", *shown]) if IN_DOCKER else f"Next: {' · '.join(shown)}"


def complain(text: str) -> None:
    """Print text, taken literally, to standard error."""
    err.print(text, style="red", markup=False, soft_wrap=not err.is_terminal)


def seconds(value: float) -> str:
    """``7.2 s``, ``193 s``, ``12 min``, ``3 h``, ``4 d``."""
    if value < 10:
        return f"{value:.1f} s"
    if value < 600:
        return f"{value:.0f} s"
    if value < 7200:
        return f"{value / 60:.0f} min"
    return f"{value / 3600:.0f} h" if value < 172800 else f"{value / 86400:.0f} d"


def size(count: float) -> str:
    """Bytes for people: ``512 kB``, ``1.2 GB``."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


@contextmanager
def interruptible(advice: str) -> Iterator[None]:
    """Turn Ctrl-C into exit code 130 and a sentence that says what is left and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise CliError(f"Interrupted. {advice}", INTERRUPTED) from None


class Board:
    """A renderable that is redrawn while the block runs, or printed change by change.

    ``draw`` gives the present picture. :meth:`changed` prints ``line`` after the seconds since the block
    began, when the picture cannot be redrawn.
    """

    def __init__(self, draw: Callable[[], RenderableType]) -> None:
        self.started = time.monotonic()
        self._draw = draw
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if is_live():
            self._live = Live(get_renderable=self._draw, console=out, refresh_per_second=5)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def changed(self, line: str) -> None:
        if self._live is None:
            print(f"{self.elapsed:7.1f} s  {line}", flush=True)
