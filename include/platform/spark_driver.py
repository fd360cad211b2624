"""``python -m include.platform.spark_driver ARGUMENTS…``: becomes ``spark-submit ARGUMENTS…``, the one driver of its name.

It is told by the environment: the application's name (``SHUDL_SPARK_NAME``), whose it is (``SHUDL_HOME``), where the
master's web UI is (``SHUDL_SPARK_MASTER_UI``) and which Spark it is to start (``SPARK_HOME``).

A driver dies with the process that submits it. What nevertheless is left of an earlier driver of the name is ended
first: its processes, known by the same two variables, and by the master, who is waited for until the application is
over. Two that start at once are kept apart by a lock that the driver holds as long as it lives; the younger one wins.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import NoReturn

import httpx
import psutil

from include.platform.spark import Master

MARKS = ("SHUDL_SPARK_NAME", "SHUDL_HOME")
"""Variables that every process of a driver inherits, and that together are its own."""
SINCE = "SHUDL_SPARK_SINCE"
"""Variable that the processes of a driver inherit from when it becomes Spark: its own age, whatever theirs."""
LOCK_S = 30
MASTER_S = 60
PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """SIGKILL for this process, and what it becomes, when the thread that started it ends."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def age(process: psutil.Process, environment: Mapping[str, str]) -> tuple[float, int]:
    """When the driver that ``process`` belongs to began, and its process id."""
    began, pid = environment.get(SINCE, f"{process.create_time()} {process.pid}").split()
    return float(began), int(pid)


def older() -> list[psutil.Process]:
    """The processes of drivers of this name that began before this one."""
    mine = [os.environ[mark] for mark in MARKS]
    my_age = age(psutil.Process(), {})
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if [environment.get(mark) for mark in MARKS] == mine and age(process, environment) < my_age:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def end(processes: list[psutil.Process]) -> None:
    for process in processes:
        say(f"ending process {process.pid}, left of an earlier driver of this name")
        with suppress(psutil.NoSuchProcess):
            process.kill()


def lock() -> socket.socket:
    """The name's lock, held until the last process that inherits it has ended. The kernel keeps it: there is no file."""
    name = hashlib.sha256("\n".join(os.environ[mark] for mark in MARKS).encode()).hexdigest()
    held = socket.socket(socket.AF_UNIX)
    deadline = time.monotonic() + LOCK_S
    while True:
        end(older())
        try:
            held.bind(f"\0shudl-spark-{name}")
        except OSError:
            if time.monotonic() > deadline:
                sys.exit(f"spark-submit: another driver of {os.environ['SHUDL_SPARK_NAME']} lives and cannot be ended")
            time.sleep(0.2)
        else:
            end(older())
            os.set_inheritable(held.fileno(), True)
            return held


def wait_for_master() -> None:
    """Until no application of the name is active on the master."""
    name, url = os.environ["SHUDL_SPARK_NAME"], os.environ["SHUDL_SPARK_MASTER_UI"]
    master = Master(url)
    deadline = time.monotonic() + MASTER_S
    while True:
        try:
            active = master.applications(name)
        except (httpx.HTTPError, ValueError, KeyError) as error:
            reason = f"the Spark master does not answer at {url}: {type(error).__name__}: {error}"
        else:
            if not active:
                return
            reason = f"{name} runs already as {', '.join(active)}, and its driver is not on this machine"
        if time.monotonic() > deadline:
            sys.exit(f"spark-submit: {reason}")
        time.sleep(0.3)


def say(text: str) -> None:
    print(f"spark-submit: {text}", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> NoReturn:
    die_with_parent()
    held = lock()
    wait_for_master()
    program = os.path.join(os.environ["SPARK_HOME"], "bin", "spark-submit")
    # Airflow's own settings, its database's password among them, are no business of an application.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
    environment[SINCE] = "{} {}".format(*age(psutil.Process(), {}))
    say(f"starting the driver as process {os.getpid()}, which holds lock {held.fileno()}")
    os.execve(program, [program, *arguments], environment)


if __name__ == "__main__":
    main(sys.argv[1:])
