"""What the machine must offer, checked without changing anything.

:func:`examine` gives every check; :func:`before_start` those that can keep services from starting.
"""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from include.platform.catalog import BY_NAME
from include.platform.engines.state import stale_engines, stale_envs, stale_links
from include.platform.jre import NoJre, spark_java_version, spark_jre
from include.platform.settings import ROOT, Settings, settings
from include.platform.supervisor import Supervisor, port_holder, taken_ports

MEMORY_NEEDED_GB = 10
MEMORY_LEAST_GB = 6
DISK_INSTALL_GB = 8
DISK_LEAST_GB = 2
OPEN_FILES = 4096
PLAIN_PATH = re.compile(r"[A-Za-z0-9._/@+-]+")
LONGEST_PATH = 90
"""``#!`` lines of installed programs, and sockets, hold 108 to 127 characters."""


@dataclass(frozen=True)
class Check:
    """One finding: ``status`` is ``ok``, ``warn`` or ``fail``; ``advice`` is the way out of the latter two."""

    name: str
    status: str
    found: str
    advice: str = ""


def examine(s: Settings = settings) -> list[Check]:
    """Every check, in the order in which a person would look."""
    return [
        _python(),
        _cpu(),
        _memory(s),
        _disk(s),
        _state_folder(s),
        *_paths(s),
        _installation(),
        _spark(s),
        *_ports(s),
        _ephemeral_ports(s),
        _open_files(),
        _user(),
    ]


def before_start(s: Settings = settings) -> list[Check]:
    """What would keep services from starting: only the checks that fail."""
    checks = (_disk(s), _state_folder(s), *_paths(s), *_ports(s), _open_files(), _user())
    return [check for check in checks if check.status == "fail"]


def _python() -> Check:
    return Check("Python", "ok", f"{platform.python_version()} ({sys.executable})")


def _cgroup(name: str) -> str:
    try:
        return Path("/sys/fs/cgroup", name).read_text().strip()
    except OSError:
        return ""


def _cpu() -> Check:
    cores: float = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup("cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit():
        cores = min(cores, int(quota[0]) / int(quota[1]))
    if cores < 2:
        return Check("CPU", "warn", f"{cores:g} cores", "ShuDL runs on fewer than 2, but slowly")
    return Check("CPU", "ok", f"{cores:g} cores")


def _ours(s: Settings) -> int:
    """Resident bytes of the platform, if it runs."""
    pid = Supervisor(s).pid() if s.home.exists() else None
    if pid is None:
        return 0
    total = 0
    for process in psutil.Process(pid).children(recursive=True):
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


def _memory(s: Settings) -> Check:
    memory = psutil.virtual_memory()
    free = memory.available
    limit = _cgroup("memory.max")
    if limit.isdigit():
        free = min(free, int(limit) - int(_cgroup("memory.current") or 0))
    ours = _ours(s)
    gb = (free + ours) / 1e9
    found = f"{gb:.1f} GB of {memory.total / 1e9:.1f} GB can be used" + (f" ({ours / 1e9:.1f} GB by ShuDL now)" if ours else "")
    advice = f"ShuDL with Airflow takes up to {MEMORY_NEEDED_GB} GB: end other programs, or use a larger machine"
    if gb < MEMORY_LEAST_GB:
        return Check("memory", "fail", found, advice)
    return Check("memory", "warn", found, advice) if gb < MEMORY_NEEDED_GB else Check("memory", "ok", found)


def _nearest(path: Path) -> Path:
    """``path``, or its first parent that exists."""
    while not path.exists():
        path = path.parent
    return path


def missing() -> list[str]:
    """Environments and engines that are not installed as their locks say."""
    if not (settings.install or settings.home).exists():
        return ["anything"]
    engines = [*stale_engines(), *(link.name for link in stale_links())]
    return [f"envs/{name}" for name in stale_envs()] + [f"engines/{name}" for name in engines]


def _disk(s: Settings) -> Check:
    place = _nearest(s.home)
    gb = shutil.disk_usage(place).free / 1e9
    found = f"{gb:.1f} GB free where {s.home} lies"
    needed = DISK_INSTALL_GB if missing() else DISK_LEAST_GB
    if gb < needed:
        return Check("disk", "fail", found, f"{needed} GB are needed: free some, or set SHUDL_HOME to a folder on another disk")
    if gb < DISK_INSTALL_GB:
        return Check("disk", "warn", found, "./shudl status says what takes the space")
    return Check("disk", "ok", found)


def _state_folder(s: Settings) -> Check:
    place = _nearest(s.home)
    if not place.is_dir():
        return Check("state folder", "fail", f"{place} is not a folder", "move that file away, or set SHUDL_HOME")
    if not os.access(place, os.W_OK | os.X_OK):
        return Check(
            "state folder", "fail", f"{place} cannot be written", "change its owner, or set SHUDL_HOME to a folder of yours"
        )
    return Check("state folder", "ok", str(s.home))


def _paths(s: Settings) -> list[Check]:
    found = []
    for what, path, way_out in (
        ("checkout", ROOT, "move the checkout"),
        ("state folder", s.home, "set SHUDL_HOME to a plainer path"),
    ):
        if not PLAIN_PATH.fullmatch(str(path)):
            odd = "".join(sorted(set(re.sub(PLAIN_PATH, "", str(path)))))
            found.append(
                Check(
                    "path",
                    "fail",
                    f"{what} {path} contains {odd!r}",
                    f"{way_out}: the engines' scripts take letters, digits and ._-+@/ only",
                )
            )
        elif len(str(path)) > LONGEST_PATH:
            found.append(
                Check(
                    "path",
                    "warn",
                    f"{what} {path} is {len(str(path))} characters long",
                    f"{way_out} when a program cannot be started",
                )
            )
    return found or [Check("path", "ok", "no odd characters, not too long")]


def _installation() -> Check:
    if gone := missing():
        return Check("installation", "warn", f"not there or not current: {', '.join(gone)}", "./shudl setup installs it")
    return Check("installation", "ok", "all that the locks name")


def _spark(s: Settings) -> Check:
    try:
        version = spark_java_version(s)
    except NoJre as error:
        reason, _, way_out = str(error).partition("; ")
        return Check("Java for Spark", "warn", f"none: {reason}", f"all but Spark works without; {way_out}")
    return Check("Java for Spark", "ok", f"{version} ({spark_jre(s)})")


def leftovers(s: Settings = settings) -> dict[psutil.Process, str]:
    """Processes of this checkout that no supervisord looks after any more, and the service that each belongs to."""
    pid = Supervisor(s).pid() if s.home.exists() else None
    looked_after = {p.pid for p in psutil.Process(pid).children(recursive=True)} if pid else set()
    found = {}
    for process in psutil.process_iter():
        if process.pid in looked_after:
            continue
        try:
            env = process.environ()
        except (psutil.Error, OSError):
            continue
        name = env.get("SUPERVISOR_PROCESS_NAME")
        if name in BY_NAME and env.get("RUN_DIR", "").startswith(f"{s.home}/run/"):
            found[process] = name
    return found


def _neighbour(s: Settings) -> Path | None:
    """The configuration of another ShuDL whose supervisord listens in our block of ports."""
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "supervisor.supervisord" not in command or "-c" not in command[:-1]:
            continue
        config = Path(command[command.index("-c") + 1])
        try:
            if not config.is_relative_to(s.home) and f"port={s.host}:{s.port('supervisor')}\n" in config.read_text():
                return config
        except OSError:
            continue
    return None


def _ports(s: Settings) -> list[Check]:
    name = f"ports {s.port_base}–{s.port_base + 99}"
    supervisor = Supervisor(s)
    runs = s.home.exists() and supervisor.running()
    alive = {info["name"] for info in supervisor.rpc.supervisor.getAllProcessInfo() if info["pid"]} if runs else set()
    problems = taken_ports([name for name in BY_NAME if name not in alive], s)
    if not runs and (holder := port_holder(s.port("supervisor"), s)):
        problems.insert(0, f"port {s.port('supervisor')} (supervisord) is taken by {holder}")
    if not problems:
        return [Check(name, "ok", "used by ShuDL" if runs else "free")]
    base = 22000 if s.port_base != 22000 else 23000
    advice = f"end that program, or use another block of ports: SHUDL_PORT_BASE={base}"
    if not runs and (other := _neighbour(s)):
        advice = f"another ShuDL runs there ({other.parents[2]}): stop it, or use another block of ports: SHUDL_PORT_BASE={base}"
    elif leftovers(s):
        advice = "processes of this checkout have outlived their supervisor: ./shudl down ends them"
    return [Check(name, "fail", problem, advice) for problem in problems]


def _ephemeral_ports(s: Settings) -> Check:
    try:
        low, high = (int(word) for word in Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    except (OSError, ValueError):
        return Check("port block", "ok", f"{s.port_base}–{s.port_base + 99}")
    if s.port_base + 99 >= low and s.port_base <= high:
        return Check(
            "port block",
            "warn",
            f"the system gives ports {low}–{high} to outgoing connections",
            f"one of them may take a port of a service: set SHUDL_PORT_BASE below {low - 100}",
        )
    return Check("port block", "ok", f"outside of {low}–{high}, which the system gives to outgoing connections")


def _open_files() -> Check:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        return Check("open files", "fail", f"at most {hard}", f"raise the hard limit (ulimit -Hn) to {OPEN_FILES} or more")
    return Check("open files", "ok", "no limit" if hard == resource.RLIM_INFINITY else f"up to {hard}")


def _user() -> Check:
    if os.getuid() != 0:
        return Check("user", "ok", f"uid {os.getuid()}")
    if shutil.which("setpriv") is None:
        return Check(
            "user", "fail", "root, without setpriv", "PostgreSQL refuses root: install util-linux, or run ShuDL as another user"
        )
    return Check("user", "ok", "root; PostgreSQL runs as another user")
