"""``./shudl doctor``: the machine, and what of ShuDL runs on it, checked without changing anything.

:func:`examine` gives every check; :func:`before_start` those that can keep services from starting.
"""

from __future__ import annotations

from pathlib import Path

import psutil

from include.platform import machine
from include.platform.catalog import BY_NAME
from include.platform.jre import NoJre, spark_java_version, spark_jre
from include.platform.machine import Check
from include.platform.settings import Settings, settings
from include.platform.supervisor import Supervisor, port_holder, taken_ports


def examine(s: Settings = settings) -> list[Check]:
    """Every check, in the order in which a person would look."""
    return [
        machine.system(),
        machine.python(),
        machine.cpu(),
        machine.memory(_ours(s)),
        machine.disk(s),
        machine.inodes(s),
        machine.state_folder(s),
        *machine.paths(s),
        machine.installation(s),
        _spark(s),
        *_ports(s),
        machine.ephemeral_ports(s),
        machine.open_files(),
        machine.clock(s),
        machine.user(),
    ]


def before_start(s: Settings = settings) -> list[Check]:
    """What would keep services from starting: only the checks that fail."""
    checks = (
        machine.disk(s),
        machine.inodes(s),
        machine.state_folder(s),
        *machine.paths(s),
        *_ports(s),
        machine.open_files(),
        machine.clock(s),
        machine.user(),
    )
    return [check for check in checks if check.status == "fail"]


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
