"""``make demo`` from nothing and again: seconds by phase, bytes installed, peak memory by service.

Runs in a folder of its own, on the port block 400 above the platform's. The package clients' caches are used as they
are; ``SHUDL_EMPTY_CACHES=1`` gives uv, pip and the Maven client empty ones, so that all is downloaded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import show
from include.platform.evidence import latest_evidence
from include.platform.settings import ROOT, Settings, settings

PORTS_ABOVE = 400
INSTALLED = ("envs", "engines", "data", "logs")


def measure() -> dict[str, Any]:
    """``{first, again, bytes}``: the evidence of both runs, and what lies on the disk after the first."""
    with tempfile.TemporaryDirectory(prefix="shudl-benchmark-") as folder:
        home = Path(folder) / "home"
        env = {**os.environ, "SHUDL_HOME": str(home), "SHUDL_PORT_BASE": str(settings.port_base + PORTS_ABOVE)}
        env.pop("SHUDL_INSTALL", None)
        if os.environ.get("SHUDL_EMPTY_CACHES"):
            caches = {"UV_CACHE_DIR": "uv", "PIP_CACHE_DIR": "pip", "XDG_CACHE_HOME": "cache"}
            env |= {name: f"{folder}/caches/{place}" for name, place in caches.items()}
        try:
            first = _run(env, home)
            sizes = {name: _bytes(home / name) for name in INSTALLED}
            again = _run(env, home)
        finally:
            subprocess.run(["./shudl", "down"], cwd=ROOT, env=env, check=False)
            shutil.rmtree(home, ignore_errors=True)
    phases = list(first["phases_s"])
    rows = [(phase, first["phases_s"][phase], again["phases_s"].get(phase, 0.0)) for phase in phases]
    show("make demo", [*rows, ("all", first["total_s"], again["total_s"])], ("phase", "from nothing, s", "again, s"))
    show("On the disk", [(name, round(size / 1e6)) for name, size in sizes.items()], ("folder", "MB"))
    held = sorted(first["highest_bytes"].items(), key=lambda item: -item[1])
    total = ("all at once", round(first["peak_bytes"] / 1e6))
    show("Peak memory, from nothing", [*((name, round(size / 1e6)) for name, size in held), total], ("service", "MB"))
    return {"first": first, "again": again, "bytes": sizes}


def _run(env: dict[str, str], home: Path) -> dict[str, Any]:
    started = time.monotonic()
    subprocess.run(["make", "demo"], cwd=ROOT, env=env, stdin=subprocess.DEVNULL, check=True)
    found = latest_evidence("demo", Settings(home=home, port_base=int(env["SHUDL_PORT_BASE"])))
    assert found is not None
    return {**found, "wall_s": time.monotonic() - started}


def _bytes(folder: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
