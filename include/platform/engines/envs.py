"""Python environments, made by uv from their locks."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

from include.platform.engines import state
from include.platform.engines.errors import EngineError, explain
from include.platform.engines.places import places
from include.platform.engines.progress import Row

WHEELS_OF = {"flink": "3.11"}
"""Environments of which only files are used: the Python for which their wheels are chosen, whatever runs here."""


def uv(*arguments: str | Path, row: Row | None = None, lock_fd: int | None = None) -> None:
    """Runs the pinned uv, its lines shown in ``row``; raises :class:`EngineError` with what it said.

    uv keeps ``lock_fd`` open: should this process be killed, the installation lock is held until uv has ended.
    """
    command = [str(places.envs / state.TOOLS / "bin" / "uv"), "--no-progress", *map(str, arguments)]
    fds = () if lock_fd is None else (lock_fd,)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=fds,
    )
    lines: list[str] = []

    def read() -> None:
        lines.extend(process.stderr or ())

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        while reader.is_alive():
            reader.join(0.2)
            if row:
                row.note(lines[-1].strip() if lines and not lines[-1].startswith("Using ") else "resolving")
    finally:
        if reader.is_alive():
            process.terminate()
        process.wait()
    if process.returncode:
        raise EngineError(explain(row.name if row else " ".join(map(str, arguments)), "".join(lines)))


def install(env: str, row: Row, lock_fd: int) -> None:
    """Makes ``env`` as its lock says; every file is checked against the lock's hashes.

    One that was complete under another lock is changed in place, anything else is made from nothing.
    """
    folder = places.envs / env
    digest = state.env_digest(env)
    row.start("making the environment")
    if state.stamp_of(folder).startswith(state.env_place(env)):
        (folder / ".stamp").unlink()
    else:
        state.remove(folder)
        uv("venv", "--python", state.base_python(), "--no-python-downloads", folder, row=row, lock_fd=lock_fd)
    options = ["--python", places.python(env), "--require-hashes"]
    options += ["--build-constraints", state.BUILD_LOCK, "--require-build-hashes"]
    options += ["--preview-features", "build-dependency-hashes"]
    if env in WHEELS_OF:
        options += ["--python-version", WHEELS_OF[env]]
    uv("pip", "sync", *options, state.ENV_LOCKS[env], row=row, lock_fd=lock_fd)
    state.stamp(folder, digest)
    packages = sum(1 for line in state.ENV_LOCKS[env].read_text().splitlines() if "==" in line and line[0] != " ")
    row.finish(f"{packages} packages")
