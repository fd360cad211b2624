"""The tests' platform lives beside the user's: a state folder of its own within the user's, and the next port block.

Both share environments and engines; its pipeline files are copies, beside which tests put their own.
``SHUDL_TEST_KEEP=1`` goes on with the last session's platform instead of beginning from nothing (for people who write
tests).
"""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

_base = Path(os.environ.get("SHUDL_HOME") or Path(__file__).resolve().parents[1] / ".shudl").absolute()
_home = _base / "test"
_home.mkdir(parents=True, exist_ok=True)
os.environ.setdefault("SHUDL_INSTALL", str(_base))
os.environ["SHUDL_HOME"] = str(_home)
os.environ["SHUDL_PIPELINES"] = str(_home / "pipelines")
os.environ["SHUDL_PORT_BASE"] = str(int(os.environ.get("SHUDL_PORT_BASE") or 21000) + 100)

# Started in the background, a shell lets its children ignore Ctrl-C, which some tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["tests.live"]

ORDER = ("unit", "docker", "ha", "dags", "ingest", "integration", "faults")


def pytest_sessionstart(session) -> None:
    """Begin from nothing: end what an interrupted session left running, and remove its state. Copy the pipeline files."""
    if session.config.option.collectonly:
        return
    from include.platform.settings import ROOT, settings
    from include.platform.supervisor import Supervisor

    if not os.environ.get("SHUDL_TEST_KEEP"):
        Supervisor().shutdown()
        for path in _home.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(ROOT / "include" / "pipelines", settings.pipelines, dirs_exist_ok=True)


def pytest_collection_modifyitems(items) -> None:
    """Quick tests first, those that crash services last."""
    tests = Path(__file__).parent
    items.sort(key=lambda item: ORDER.index(item.path.relative_to(tests).parts[0]))
