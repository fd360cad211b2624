"""What is told of a machine, also before anything is installed."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import time
from collections import namedtuple
from pathlib import Path

import pytest

from include.platform import machine
from include.platform.engines import state
from include.platform.engines.places import Places
from include.platform.settings import ROOT, Settings
from tests.ports import free_block


@pytest.fixture
def s(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "home", free_block())


def doctor(home: Path, base: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``./shudl doctor`` as in a fresh clone, with the plain Python of the machine."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("SHUDL_", "PYTHON"))}
    env |= {"SHUDL_HOME": str(home), "SHUDL_PORT_BASE": str(base)}
    command = [str(ROOT / "shudl"), "doctor", *arguments]
    return subprocess.run(command, env=env, cwd=home.parent, capture_output=True, text=True, timeout=60)


def test_doctor_installs_nothing_when_nothing_is_installed(s: Settings) -> None:
    done = doctor(s.home, s.port_base)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "missing: all environments and engines" in done.stdout and "./shudl setup" in done.stdout
    for name in ("memory", "disk", "inodes", "ports", "clock", "open files", "Python", "system"):
        assert f"  {name}" in done.stdout
    assert done.stderr == ""
    assert not s.home.exists()


def test_doctor_before_the_installation_as_json(s: Settings) -> None:
    with socket.socket() as taken:
        taken.bind((s.host, s.port("kafka")))
        taken.listen()
        done = doctor(s.home, s.port_base, "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["ok"]) == (1, False)
    (failed,) = [check for check in found["checks"] if check["status"] == "fail"]
    assert failed["found"] == f"taken: {s.port('kafka')} (kafka)" and "SHUDL_PORT_BASE=" in failed["advice"]
    assert all(check["advice"] for check in found["checks"] if check["status"] != "ok")
    assert doctor(s.home, s.port_base, "--nosuch").returncode == 2


def test_the_module_needs_the_standard_library_only() -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\nimport include.platform.machine\n"
        "print(*{name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names))"
    )
    command = [state.base_python(), "-I", "-S", "-c", program, str(ROOT)]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) <= {"include", "__main__", "__mp_main__"}


def test_a_half_finished_installation_is_told_from_a_missing_one(s: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "places", Places(s.install or s.home))
    assert machine.installation(s).found == "missing: all environments and engines"
    for name in ("dbt", "chdb"):
        (s.home / "envs" / name / "bin").mkdir(parents=True)
    (s.home / "envs" / "chdb" / ".stamp").write_text("of another lock")
    found = machine.unfinished(s)
    assert {name: found[f"envs/{name}"] for name in ("dbt", "chdb", "airflow")} == {
        "dbt": "half installed", "chdb": "outdated", "airflow": "missing",
    }  # fmt: skip
    check = machine.installation(s)
    assert (check.status, check.advice) == ("warn", "./shudl setup goes on where it stopped")
    assert "half installed: envs/dbt" in check.found and "outdated: envs/chdb" in check.found
    with (s.home / "install.lock").open("w") as lock:
        lock.write("4711\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert machine.installation(s).found.startswith("process 4711 installs now")
    assert not machine.installation(s).found.startswith("process")


def test_the_clock(s: Settings) -> None:
    assert machine.clock(s).status in ("ok", "warn")
    assert machine.clock(s, now=0).status == "fail"
    assert machine.clock(s, now=1e11).status == "fail"
    log = s.logs / "kafka.log"
    log.touch()
    assert "set back" not in machine.clock(s).advice
    ahead = time.time() + 3600
    os.utime(log, (ahead, ahead))
    check = machine.clock(s)
    assert "60 minutes younger" in check.found and "set back" in check.advice
    os.utime(log, (0, 0))
    assert "younger" not in machine.clock(s).found


def test_disk_inodes_and_memory(s: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    usage, stat = namedtuple("usage", "free"), namedtuple("stat", "f_files f_favail")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(7_900_000_000))
    assert machine.disk(s).status == "fail" and "8 GB are needed" in machine.disk(s).advice
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(8_100_000_000))
    assert machine.disk(s).status == "ok"
    for files, free, status in ((10**6, 149_000, "fail"), (10**6, 151_000, "ok"), (0, 0, "ok")):
        found = stat(files, free)
        monkeypatch.setattr(os, "statvfs", lambda place, found=found: found)
        assert machine.inodes(s).status == status
    assert {check.name for check in machine.before_install(s)} <= {"disk", "inodes", "memory", "clock"}
    gb = float(machine.memory().found.split()[0])
    assert float(machine.memory(ours=10**12).found.split()[0]) == pytest.approx(gb + 1000, abs=2)
    assert machine.memory(ours=-(10**12)).status == "fail"


def test_the_python_that_makes_environments(monkeypatch: pytest.MonkeyPatch, s: Settings) -> None:
    monkeypatch.setattr(machine, "settings", s)
    assert machine.python().status == "ok"
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None)
    check = machine.python()
    assert check.status == "fail" and "lacks venv and ensurepip and pip" in check.found and "python3-venv" in check.advice
