"""What the machine must offer, as far as plain Python can tell without changing anything.

``./shudl doctor`` runs this module by itself while nothing is installed, and the installer asks :func:`before_install`;
:mod:`include.platform.doctor` adds what needs the installed environment. Standard library only.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib.util
import json
import os
import platform
import re
import resource
import shutil
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from include.platform.engines import state
from include.platform.engines.errors import EngineError
from include.platform.settings import PORT_OFFSETS, ROOT, Settings, settings

MEMORY_NEEDED_GB = 10
MEMORY_LEAST_GB = 6
DISK_INSTALL_GB = 8
DISK_LEAST_GB = 2
INODES_INSTALL = 150_000
INODES_LEAST = 20_000
OPEN_FILES = 4096
PLAIN_PATH = re.compile(r"[A-Za-z0-9._/@+-]+")
LONGEST_PATH = 90
"""``#!`` lines of installed programs, and sockets, hold 108 to 127 characters."""

FIRST_YEAR, LAST_YEAR = 2026, 2100
"""Before the first no clock is right: this program is younger."""

AHEAD_S = 60
"""How far files may lie in the future before the clock must have been set back."""

UNSYNCHRONIZED = 5
"""What ``adjtimex(2)`` returns while nothing keeps the clock right."""


@dataclass(frozen=True)
class Check:
    """One finding: ``status`` is ``ok``, ``warn`` or ``fail``; ``advice`` is the way out of the latter two."""

    name: str
    status: str
    found: str
    advice: str = ""


def examine(s: Settings = settings) -> list[Check]:
    """Every check that needs nothing installed, in the order in which a person would look."""
    return [
        system(),
        python(),
        cpu(),
        memory(),
        disk(s),
        inodes(s),
        state_folder(s),
        *paths(s),
        installation(s),
        free_ports(s),
        ephemeral_ports(s),
        open_files(),
        clock(s),
        user(),
    ]


def before_install(s: Settings = settings) -> list[Check]:
    """What may keep an installation, or what is installed, from working: worth knowing before a long download."""
    return [check for check in (disk(s), inodes(s), memory(), clock(s)) if check.status == "fail"]


def show(checks: list[Check], as_json: bool, line: Callable[[str, Check], None]) -> bool:
    """Print the checks as JSON, or each by ``line`` (status and check); whether none failed."""
    well = all(check.status != "fail" for check in checks)
    if as_json:
        print(json.dumps({"ok": well, "checks": [asdict(check) for check in checks]}, indent=2))
    else:
        for check in checks:
            line({"ok": "ok  ", "warn": "warn", "fail": "FAIL"}[check.status], check)
    return well


def system() -> Check:
    """Whether the engines' packages are for this machine."""
    try:
        state.check_platform()
    except EngineError as error:
        found, _, advice = str(error).partition(". ")
        return Check("system", "fail", found, advice)
    return Check("system", "ok", f"{platform.system()} on {platform.machine()}, {' '.join(platform.libc_ver())}")


def python() -> Check:
    """Whether this Python can make environments; once they are made they need nothing of it."""
    found = f"{platform.python_version()} ({sys.executable})"
    lacks = [name for name in ("venv", "ensurepip", "pip") if importlib.util.find_spec(name) is None]
    cannot = "venv" in lacks or {"ensurepip", "pip"} <= set(lacks)
    if cannot and not state.stamp_of(_installed(settings) / "envs" / state.TOOLS):
        advice = "install them: on Debian and Ubuntu the packages python3-venv and python3-pip"
        return Check("Python", "fail", f"{found} lacks {' and '.join(lacks)}", advice)
    return Check("Python", "ok", found)


def _cgroup(name: str) -> str:
    try:
        return Path("/sys/fs/cgroup", name).read_text().strip()
    except OSError:
        return ""


def cpu() -> Check:
    cores: float = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup("cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit():
        cores = min(cores, int(quota[0]) / int(quota[1]))
    if cores < 2:
        return Check("CPU", "warn", f"{cores:g} cores", "ShuDL runs on fewer than 2, but slowly")
    return Check("CPU", "ok", f"{cores:g} cores")


def memory(ours: int = 0) -> Check:
    """``ours``: resident bytes of the platform, which count as free."""
    kilobytes = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        kilobytes[name] = int(rest.split()[0])
    total, free = kilobytes["MemTotal"] * 1024, kilobytes["MemAvailable"] * 1024
    limit = _cgroup("memory.max")
    if limit.isdigit():
        free = min(free, int(limit) - int(_cgroup("memory.current") or 0))
    gb = (free + ours) / 1e9
    found = f"{gb:.1f} GB of {total / 1e9:.1f} GB can be used" + (f" ({ours / 1e9:.1f} GB by ShuDL now)" if ours else "")
    advice = f"ShuDL with Airflow takes up to {MEMORY_NEEDED_GB} GB: end other programs, or use a larger machine"
    if gb < MEMORY_LEAST_GB:
        return Check("memory", "fail", found, advice)
    return Check("memory", "warn", found, advice) if gb < MEMORY_NEEDED_GB else Check("memory", "ok", found)


def _nearest(path: Path) -> Path:
    """``path``, or its first parent that exists."""
    while not path.exists():
        path = path.parent
    return path


def _installed(s: Settings) -> Path:
    return s.install or s.home


def unfinished(s: Settings = settings) -> dict[str, str]:
    """Environments and engines that are not as their locks say, each ``missing``, ``half installed`` or ``outdated``."""
    root = _installed(s)
    if not root.exists():
        return {"all environments and engines": "missing"}

    def how(folder: Path) -> str:
        return "outdated" if state.stamp_of(folder) else "half installed" if folder.exists() else "missing"

    found = {f"envs/{name}": how(root / "envs" / name) for name in state.stale_envs()}
    found |= {f"engines/{name}": how(root / "engines" / name) for name in state.stale_engines()}
    links = {str(link.relative_to(root)): "missing" for link in state.stale_links()}
    return found | (links if not found else {})


def _installer(s: Settings) -> str:
    """The process that installs at this moment, or an empty string."""
    lock = _installed(s) / "install.lock"
    try:
        with lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read(20).strip()
    except OSError:
        pass
    return ""


def installation(s: Settings = settings) -> Check:
    """The locks against what is installed."""
    gone = unfinished(s)
    if not gone:
        return Check("installation", "ok", "all that the locks name")
    by_state: dict[str, list[str]] = {}
    for name, how in gone.items():
        by_state.setdefault(how, []).append(name)
    found = "; ".join(f"{how}: {', '.join(names)}" for how, names in by_state.items())
    if process := _installer(s):
        return Check("installation", "warn", f"process {process} installs now; {found}", "wait for it, then ask again")
    advice = "./shudl setup goes on where it stopped" if "half installed" in by_state else "./shudl setup installs it"
    return Check("installation", "warn", found, advice)


def disk(s: Settings = settings) -> Check:
    place = _nearest(s.home)
    gb = shutil.disk_usage(place).free / 1e9
    found = f"{gb:.1f} GB free where {s.home} lies"
    needed = DISK_INSTALL_GB if unfinished(s) else DISK_LEAST_GB
    if gb < needed:
        return Check("disk", "fail", found, f"{needed} GB are needed: free some, or set SHUDL_HOME to a folder on another disk")
    if gb < DISK_INSTALL_GB:
        return Check("disk", "warn", found, "./shudl status says what takes the space")
    return Check("disk", "ok", found)


def inodes(s: Settings = settings) -> Check:
    """Files that can still be made. File systems without a fixed number say 0 of 0."""
    stat = os.statvfs(_nearest(s.home))
    needed = INODES_INSTALL if unfinished(s) else INODES_LEAST
    if stat.f_files and stat.f_favail < needed:
        advice = f"{needed:,} are needed: remove many small files, or set SHUDL_HOME to a folder on another disk"
        return Check("inodes", "fail", f"{stat.f_favail:,} more files can be made where {s.home} lies", advice)
    return Check("inodes", "ok", f"{stat.f_favail:,} more files" if stat.f_files else "no limit")


def state_folder(s: Settings) -> Check:
    place = _nearest(s.home)
    if not place.is_dir():
        return Check("state folder", "fail", f"{place} is not a folder", "move that file away, or set SHUDL_HOME")
    if not os.access(place, os.W_OK | os.X_OK):
        return Check(
            "state folder", "fail", f"{place} cannot be written", "change its owner, or set SHUDL_HOME to a folder of yours"
        )
    return Check("state folder", "ok", str(s.home))


def paths(s: Settings) -> list[Check]:
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


def free_ports(s: Settings = settings) -> Check:
    """Whether nobody listens in the block, while nothing is installed that could be ours."""
    name = f"ports {s.port_base}–{s.port_base + 99}"
    taken = []
    for service, offset in PORT_OFFSETS.items():
        with socket.socket() as probe:
            probe.settimeout(0.5)
            if probe.connect_ex((s.host, s.port_base + offset)) == 0:
                taken.append(f"{s.port_base + offset} ({service})")
    if not taken:
        return Check(name, "ok", "free")
    base = 22000 if s.port_base != 22000 else 23000
    advice = f"end the programs that listen there, or use another block of ports: SHUDL_PORT_BASE={base}"
    return Check(name, "fail", f"taken: {', '.join(taken)}", advice)


def clock(s: Settings = settings, now: float | None = None) -> Check:
    """Whether the time can be right: S3 signatures, tokens and the order of logs and checkpoints depend on it."""
    now = time.time() if now is None else now
    told = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if not FIRST_YEAR <= time.gmtime(now).tm_year < LAST_YEAR:
        return Check("clock", "fail", told, "set the system's clock: timedatectl set-ntp true, or date -s")
    newest = max((path.stat().st_mtime for path in _written(s)), default=0.0)
    if newest > now + AHEAD_S:
        ahead = f"{(newest - now) / 60:.0f} minutes"
        advice = "the clock was set back, or is wrong now: correct it before ShuDL starts, else runs and checkpoints get mixed up"
        return Check("clock", "warn", f"{told}, but files in {s.home} are {ahead} younger", advice)
    try:
        told_by_kernel = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    except (OSError, AttributeError):
        told_by_kernel = -1
    if told_by_kernel < 0:  # a container may not ask
        return Check("clock", "ok", told)
    if told_by_kernel == UNSYNCHRONIZED:
        return Check("clock", "warn", f"{told}; nothing keeps it right", "turn NTP on: timedatectl set-ntp true, or chrony")
    return Check("clock", "ok", f"{told}, kept right by NTP")


def _written(s: Settings) -> list[Path]:
    """Files that a running platform writes all the time."""
    return [path for folder in ("logs", "run", "evidence") for path in (s.home / folder).glob("*") if path.exists()]


def ephemeral_ports(s: Settings) -> Check:
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


def open_files() -> Check:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        return Check("open files", "fail", f"at most {hard}", f"raise the hard limit (ulimit -Hn) to {OPEN_FILES} or more")
    return Check("open files", "ok", "no limit" if hard == resource.RLIM_INFINITY else f"up to {hard}")


def user() -> Check:
    if os.getuid() != 0:
        return Check("user", "ok", f"uid {os.getuid()}")
    if shutil.which("setpriv") is None:
        return Check(
            "user", "fail", "root, without setpriv", "PostgreSQL refuses root: install util-linux, or run ShuDL as another user"
        )
    return Check("user", "ok", "root; PostgreSQL runs as another user")


def main(arguments: list[str]) -> int:
    """``doctor`` before anything is installed. Exit code: 0 nothing fails, 1 something does, 2 wrong usage."""
    if set(arguments) - {"--json"}:
        print("usage: ./shudl doctor [--json]", file=sys.stderr)
        return 2

    def line(status: str, check: Check) -> None:
        print(f"{status}  {check.name:<19} {check.found}")
        if check.advice:
            print(f"{'':<25} → {check.advice}")

    return 0 if show(examine(), "--json" in arguments, line) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
