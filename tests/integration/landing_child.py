"""``landing_child.py FOLDER POINT``: loads the folder, and is killed by SIGKILL at the point of the load."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from include.ingest import deadletters, landing, landing_table
from include.platform.endpoints import local_endpoints


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(place: Any, name: str, after: bool = False) -> None:
    known: Callable[..., Any] = getattr(place, name)

    def deed(*args: Any, **kwargs: Any) -> Any:
        if after:
            known(*args, **kwargs)
        die()

    setattr(place, name, deed)


POINTS: dict[str, Callable[[], None]] = {
    "no row is written": lambda: killed(landing_table._Writer, "_open"),
    "rows are written": lambda: killed(landing_table._Writer, "close"),
    "dead letters are kept": lambda: killed(deadletters, "append", after=True),
    "before the commit": lambda: killed(landing_table, "_post"),
    "after the commit": lambda: killed(landing_table, "_post", after=True),
    "at the end": lambda: killed(landing.Loader, "_settle"),
}

if __name__ == "__main__":
    POINTS[sys.argv[2]]()
    landing.load(local_endpoints(), sys.argv[1], "killed")
    sys.exit("was not killed")
