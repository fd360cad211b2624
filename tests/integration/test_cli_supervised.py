"""The command line with supervisord and PostgreSQL, in a state folder and on ports of its own."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from include.cli.state import STATES
from include.platform.catalog import BY_NAME
from include.platform.settings import ROOT, Settings, settings
from include.platform.supervisor import Supervisor
from tests.ports import free_block

START = "from include.platform.supervisor import Supervisor; s = Supervisor(); s.launch(); s.start('postgres')"


class Checkout:
    """A state folder with the installed engines, and programs run on it."""

    def __init__(self, home: Path, base: int) -> None:
        self.settings = Settings(home, base, install=settings.installed)
        self.env = os.environ | {"SHUDL_HOME": str(home), "SHUDL_PORT_BASE": str(base), "PYTHONPATH": str(ROOT), "COLUMNS": "120"}

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "include.cli", *arguments]
        return subprocess.run(command, env=self.env, cwd=ROOT, input=stdin, capture_output=True, text=True, timeout=90)

    def start(self) -> None:
        """supervisord and PostgreSQL, until it answers."""
        subprocess.run([sys.executable, "-c", START], env=self.env, cwd=ROOT, check=True, timeout=60)
        self.until("postgres", "healthy", timeout_s=60)

    def status(self) -> dict[str, dict]:
        return {service["name"]: service for service in json.loads(self.run("status", "--json").stdout)["services"]}

    def until(self, name: str, state: str, timeout_s: float) -> dict:
        deadline = time.monotonic() + timeout_s
        while (service := self.status()[name])["state"] != state:
            assert time.monotonic() < deadline, (
                f"{name} is {service['state']} ({service['reason']}), not {state}, after {timeout_s} s"
            )
            time.sleep(0.3)
        return service


@contextmanager
def checkout() -> Iterator[Checkout]:
    # Below /tmp itself: PostgreSQL's user, when we are root, may enter it.
    with tempfile.TemporaryDirectory(prefix="shudl-test-cli-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        made = Checkout(Path(folder), free_block())
        try:
            yield made
        finally:
            made.run("down")


@pytest.fixture(scope="module")
def running() -> Iterator[Checkout]:
    with checkout() as made:
        made.start()
        yield made


def test_status_tells_what_runs(running: Checkout) -> None:
    done = running.run("status", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 3
    assert found["healthy"] is False
    assert [service["name"] for service in found["services"]] == list(BY_NAME)
    for service in found["services"]:
        assert set(service) == {"name", "title", "layer", "state", "healthy", "reason", "url", "pid", "uptime_s", "rss_mb"}
        assert service["state"] in STATES
        assert service["healthy"] == (service["state"] == "healthy")
    postgres = next(service for service in found["services"] if service["name"] == "postgres")
    assert postgres["url"] == f"postgresql://flights@127.0.0.1:{running.settings.port('postgres')}/flights"
    assert psutil.pid_exists(postgres["pid"])
    assert 1 <= postgres["rss_mb"] < 2000
    assert found["disk"]["data_mb"]["postgres"] > 10
    assert found["disk"]["free_mb"] > 0


def test_status_for_people(running: Checkout) -> None:
    done = running.run("status")
    assert done.returncode == 3
    assert f"127.0.0.1:{running.settings.port('postgres')}/flights" in done.stdout
    assert f"1 of {len(BY_NAME)} services healthy" in done.stdout
    assert running.settings.secret("postgres_flights") not in done.stdout


def test_sql(running: Checkout) -> None:
    asked = "SELECT n, n * 1.5 AS half FROM generate_series(1, 3) AS n"
    assert json.loads(running.run("sql", "postgres", asked, "--json").stdout)[2] == {"n": 3, "half": "4.5"}
    rows = list(csv.reader(io.StringIO(running.run("sql", "postgres", "-", "--csv", stdin=asked).stdout)))
    assert rows == [["n", "half"], ["1", "1.5"], ["2", "3.0"], ["3", "4.5"]]
    assert "3 rows in" in running.run("sql", "postgres", asked).stdout
    assert "CREATE TABLE" in running.run("sql", "postgres", "CREATE TEMPORARY TABLE t (n int)").stdout


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("SELEC 1", 'postgres: syntax error at or near "SELEC"\n'),
        ("SELECT 1/0", "postgres: division by zero\n"),
        ("SELECT pg_sleep(9)", "postgres: canceling statement due to statement timeout\n"),
    ],
)
def test_an_engines_error_is_its_first_cause(running: Checkout, query: str, reason: str) -> None:
    done = running.run("sql", "postgres", query, "--timeout", "2")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", reason)


def test_logs(running: Checkout) -> None:
    done = running.run("logs", "postgres", "-n", "200")
    assert done.returncode == 0
    assert "ready to accept connections" in done.stdout
    assert running.run("logs", "postgres", "-n", "1").stdout.count("\n") == 1
    done = running.run("logs", "kafka")
    assert done.returncode == 1
    assert "nothing yet" in done.stderr


def test_logs_follow(running: Checkout) -> None:
    command = [sys.executable, "-m", "include.cli", "logs", "postgres", "-n", "0", "-f"]
    process = subprocess.Popen(command, env=running.env, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(2)
        running.run("sql", "postgres", "SELECT no_such_column_in_the_log")
        assert process.stdout is not None
        assert "no_such_column_in_the_log" in process.stdout.readline()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(10)


def test_the_ports_in_use_are_our_own(running: Checkout) -> None:
    checks = json.loads(running.run("doctor", "--json").stdout)["checks"]
    ports = next(check for check in checks if check["name"].startswith("ports "))
    assert (ports["status"], ports["found"]) == ("ok", "used by ShuDL")


def test_another_checkout_on_the_same_ports_is_named(running: Checkout) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as other:
        env = running.env | {"SHUDL_HOME": f"{other}/home"}
        done = subprocess.run(
            [sys.executable, "-m", "include.cli", "up"], env=env, cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert not Path(other, "home").exists(), "something was made before the ports were checked"
    assert done.returncode == 1
    assert f"port {running.settings.port('postgres')} (postgres: postgres) is taken by pid" in done.stderr
    assert f"another ShuDL runs there ({running.settings.home})" in done.stderr


def test_a_crash_is_healed_and_seen(running: Checkout) -> None:
    pid = running.until("postgres", "healthy", timeout_s=30)["pid"]
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while (service := running.until("postgres", "healthy", timeout_s=60))["pid"] == pid:
        assert time.monotonic() < deadline, "PostgreSQL was not started again within 60 s"
    assert service["pid"] != pid


def test_down_stops_and_is_idempotent() -> None:
    with checkout() as made:
        made.start()
        pid = made.status()["postgres"]["pid"]
        assert "stopped" in (done := made.run("down", "--keep-airflow")).stdout
        assert done.returncode == 0
        assert not psutil.pid_exists(pid)
        assert Supervisor(made.settings).running(), "--keep-airflow ends no supervisord"
        assert made.run("down").returncode == 0
        assert not Supervisor(made.settings).running()
        done = made.run("down")
        assert (done.returncode, done.stdout) == (0, "Nothing was running.\n")
        made.start()
        assert made.status()["postgres"]["pid"] != pid


def test_processes_without_a_supervisor_are_named_and_ended() -> None:
    with checkout() as made:
        made.start()
        supervisord = Supervisor(made.settings).pid()
        postgres = made.status()["postgres"]["pid"]
        assert supervisord
        os.kill(supervisord, signal.SIGKILL)
        done = made.run("up")
        assert done.returncode == 1
        assert f"port {made.settings.port('postgres')} (postgres: postgres) is taken by pid {postgres}" in done.stderr
        assert "have outlived their supervisor: ./shudl down ends them" in done.stderr
        assert "had outlived their supervisor" in made.run("down").stdout
        assert not psutil.pid_exists(postgres)
