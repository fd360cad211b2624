"""``python -m include.platform.engines [lock]``: installs what the locks say, or makes the locks anew.

Without an argument it does nothing when all is installed. It starts under any Python of the machine and goes on under
that of ``envs/tools``, which it makes first.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from include.platform.engines import state
from include.platform.engines.errors import EngineError, explain, no_space
from include.platform.engines.places import places

WAIT_S = 3600


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def only_one() -> Iterator[int]:
    """Holds the checkout's installation lock and yields its file descriptor; waits while another process has it.

    Children that inherit the descriptor hold the lock until they end.
    """
    path = state.install_lock()
    if any(places.installed.iterdir()) and not path.exists():
        raise EngineError(
            f"{places.installed} holds other things, and ShuDL wants a folder of its own, which `make clean` removes. "
            "Set SHUDL_HOME to a folder that is empty or does not exist."
        )
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + WAIT_S
        waiting = False
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = os.pread(fd, 20, 0).decode().strip()
                if not waiting:
                    say(f"Waiting: process {holder}, or what it started, installs into {places.installed}.")
                    waiting = True
                if time.monotonic() > deadline:
                    raise EngineError(
                        f"process {holder} has been installing into {places.installed} for {WAIT_S // 60} minutes. "
                        "Look at what it does, end it, and run the same command again."
                    ) from None
                time.sleep(0.2)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield fd
    finally:
        os.close(fd)


def use_tools() -> None:
    """Returns when this process runs in ``envs/tools``, complete; else makes it and starts this program anew there."""
    folder = places.envs / state.TOOLS
    inside = os.path.realpath(sys.prefix) == os.path.realpath(folder)
    if state.is_current(folder, state.env_digest(state.TOOLS)):
        if inside:
            return
    elif inside:
        _start(state.base_python())
    else:
        _make_tools()
    _start(str(places.python(state.TOOLS)))


def _start(python: str) -> None:
    os.execv(python, [python, "-P", "-m", "include.platform.engines", *sys.argv[1:]])


def _make_tools() -> None:
    say("Preparing the installers (uv, jgo)")
    folder, base, python = places.envs / state.TOOLS, state.base_python(), str(places.python(state.TOOLS))
    state.remove(folder)

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        return subprocess.run(command, capture_output=True, text=True, env=env)

    made = run(base, "-m", "venv", "--without-pip", str(folder))
    pip = [base, "-m", "pip", "--python", python]
    if made.returncode == 0 and run(*pip, "--version").returncode:
        pip = [python, "-m", "pip"]
        made = run(python, "-m", "ensurepip")
    if made.returncode:
        raise EngineError(
            f"{base} can make no virtual environment with pip. Install its venv and pip (on Debian and Ubuntu: the "
            f"packages python3-venv and python3-pip), then run the same command again. {made.stderr.strip()[-300:]}"
        )
    options = ["-q", "--no-compile", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--retries", "2"]
    done = run(*pip, "install", *options, "-r", str(state.HERE / "tools.txt"))
    if done.returncode:
        raise EngineError(explain("the installers (uv, jgo)", done.stderr))
    state.stamp(folder, state.env_digest(state.TOOLS))


def warn() -> None:
    """Says what may keep an installation from working. The image ``engines`` has the installer alone, without these checks."""
    try:
        from include.platform.machine import before_install
    except ModuleNotFoundError:
        return
    except ValueError as error:  # a setting that cannot be used
        raise EngineError(str(error)) from None
    for check in before_install():
        say(f"Warning: {check.name}: {check.found}; {check.advice}")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main(arguments: list[str]) -> int:
    """Exit code: 0 installed, 1 an error that is told on stderr, 2 wrong usage, 130 interrupted."""
    if arguments not in ([], ["lock"]):
        say("usage: python -m include.platform.engines [lock]")
        return 2
    os.umask(0o022)  # PostgreSQL may run as another user than the one who installs
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if not arguments and state.is_complete():
            return 0
        state.check_platform()
        with only_one() as lock_fd:
            if not arguments and state.is_complete():  # by the one that this one waited for
                return 0
            use_tools()
            if arguments:
                from include.platform.engines.lock import make_locks

                make_locks()
            else:
                from include.platform.engines.fetch import fetch

                warn()
                fetch(lock_fd)
        return 0
    except EngineError as error:
        say(f"shudl: {error}")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            say(f"shudl: {no_space()}")
        elif error.filename:
            say(f"shudl: {error.filename}: {error.strerror}. Mend that and run the same command again.")
        else:
            raise
    except KeyboardInterrupt:
        say("Interrupted. Run the same command again: it goes on where it stopped.")
        return 130
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
