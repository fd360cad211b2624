"""Spark's Java is chosen or Spark is left out; a driver is the only one of its name, with no Spark running."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from include.cli import up
from include.cli.board import ServiceBoard
from include.cli.state import survey
from include.platform import doctor, spark_driver
from include.platform.catalog import SERVICES
from include.platform.endpoints import Endpoint, local_endpoints
from include.platform.jre import LEFT_OUT, NoJre, left_out, spark_java_version
from include.platform.settings import Settings, settings
from include.platform.spark import SERVICE, SparkError, driver_environment, properties_file, web_ui

SPARK = ["spark-master", "spark-worker"]
NAME = "dag.task.run.-1"


def java(home: Path, version: str) -> Settings:
    """Settings whose Java for Spark is one of that version, as far as its files tell."""
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "java").touch(mode=0o755)
    (home / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{version}"\n')
    return Settings(home / "state", 21000, spark_java_home=home)


@pytest.mark.parametrize("version", ["17.0.15", "21"])
def test_a_java_of_the_users_is_taken(tmp_path: Path, version: str) -> None:
    s = java(tmp_path, version)
    assert spark_java_version(s) == version
    assert not [service.name for service in SERVICES if left_out(service.name, s)]


def test_the_installed_java_fits() -> None:
    assert spark_java_version(settings).startswith("21.")


def test_spark_is_left_out_where_no_java_fits(tmp_path: Path) -> None:
    empty = Settings(tmp_path / "state", 21000, spark_java_home=tmp_path / "empty")
    with pytest.raises(NoJre, match=r"empty is not the home of a Java runtime; set SHUDL_SPARK_JAVA_HOME .* or unset it"):
        spark_java_version(empty)
    with pytest.raises(NoJre, match=r"is Java 25\.0\.3, on which Spark does not run"):
        spark_java_version(java(tmp_path / "25", "25.0.3"))

    with pytest.raises(NoJre):
        driver_environment("a", local_endpoints(empty), empty)

    assert [service.name for service in SERVICES if left_out(service.name, empty)] == SPARK
    states = {state.name: state for state in survey(s=empty)}
    assert {name for name, state in states.items() if state.left_out} == set(SPARK)
    assert "not the home of a Java" in states["spark-master"].reason
    (check,) = [check for check in doctor.examine(empty) if check.name == "Java for Spark"]
    assert check.status == "warn" and "empty" in check.found and "SHUDL_SPARK_JAVA_HOME" in check.advice


def test_up_shows_what_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "left_out", lambda name: f"no Java for {name}")
    board = ServiceBoard("", ["spark-master"])
    up.show_tasks(board, [{"task_id": f"compute.spark-master.{step}", "state": "skipped"} for step in up.STEPS])
    row = board.rows["spark-master"]
    assert (row.state, row.note) == (LEFT_OUT, "no Java for spark-master") and row.took is not None


def test_secrets_of_applications_are_in_a_private_file(tmp_path: Path) -> None:
    s = Settings(tmp_path, 21000, install=settings.installed)
    path = properties_file(local_endpoints(s), s)
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    assert f"spark.authenticate.secret {s.secret('spark_auth')}\n" in text and s.secret("s3_secret_key") in text
    assert list(path.parent.iterdir()) == [path]


FAKE_SPARK = """#!/bin/sh
sleep 60 &
{{ echo "$$ $! $*"; env; }} > {folder}/told.$$
mv {folder}/told.$$ {folder}/told
wait
"""


def test_a_connection_must_say_where_the_master_is_asked() -> None:
    with pytest.raises(SparkError, match=r'connection shudl_spark does not say .* add \{"web_ui": "http://…"\} to its extra'):
        web_ui(Endpoint("shudl_spark", "spark", "spark.example", 7077))


class FakeMaster(BaseHTTPRequestHandler):
    active: list[dict[str, str]]

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"activeapps": FakeMaster.active}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def driver_env(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a driver whose Spark writes what it was told to a file, starts a child and sleeps."""
    FakeMaster.active = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeMaster)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    program = tmp_path / "bin" / "spark-submit"
    program.parent.mkdir()
    program.write_text(FAKE_SPARK.format(folder=tmp_path))
    program.chmod(0o755)
    yield {
        **os.environ,
        "SPARK_DRIVER_PYTHON": sys.executable,
        "SPARK_HOME": str(tmp_path),
        "SHUDL_SPARK_NAME": NAME,
        "SHUDL_HOME": str(tmp_path),
        "SHUDL_SPARK_MASTER_UI": f"http://127.0.0.1:{server.server_port}",
        "NO_PROXY": "127.0.0.1",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "secret",
    }
    server.shutdown()
    server.server_close()


def start(env: dict[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([str(SERVICE / "bin" / "spark-submit"), *arguments], env=env, cwd="/")


def told(folder: Path, timeout_s: float = 30) -> tuple[int, int, str]:
    """Process id of the fake Spark, that of its child, and the rest of what it was told; forgets it."""
    file, deadline = folder / "told", time.monotonic() + timeout_s
    while not file.exists():
        assert time.monotonic() < deadline, "the driver has not started"
        time.sleep(0.05)
    pid, child, rest = file.read_text().split(" ", 2)
    file.unlink()
    return int(pid), int(child), rest


def gone(*pids: int, timeout_s: float = 10) -> bool:
    """Whether the processes end within the time."""
    processes = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    return not psutil.wait_procs(processes, timeout=timeout_s)[1]


def test_a_driver_becomes_spark_submit(driver_env: dict[str, str], tmp_path: Path) -> None:
    process = start(driver_env, "--name", NAME, "a b.py")
    pid, child, rest = told(tmp_path)
    process.kill()
    assert pid == process.pid
    assert rest.startswith(f"--name {NAME} a b.py\n")
    assert f"SHUDL_SPARK_NAME={NAME}\n" in rest and "AIRFLOW__" not in rest
    assert re.search(rf"^{spark_driver.SINCE}=[\d.]+ {pid}$", rest, re.MULTILINE), "its children must be as old as it is"
    assert process.wait() == -signal.SIGKILL
    os.kill(child, signal.SIGKILL)


def test_a_driver_dies_with_the_process_that_submits_it(driver_env: dict[str, str], tmp_path: Path) -> None:
    submit = "import json, subprocess, sys; subprocess.run(sys.argv[1], env=json.loads(sys.argv[2]))"
    submitter = subprocess.Popen([sys.executable, "-c", submit, str(SERVICE / "bin" / "spark-submit"), json.dumps(driver_env)])
    pid, child, _ = told(tmp_path)
    assert psutil.pid_exists(pid)
    submitter.kill()
    submitter.wait()
    assert gone(pid)
    os.kill(child, signal.SIGKILL)


def test_what_is_left_of_an_earlier_driver_is_ended_first(driver_env: dict[str, str], tmp_path: Path) -> None:
    first = start(driver_env)
    _, child, _ = told(tmp_path)
    other = start({**driver_env, "SHUDL_SPARK_NAME": "another"})
    _, others_child, _ = told(tmp_path)

    second = start(driver_env)
    assert first.wait(20) == -signal.SIGKILL and gone(child)
    pid, second_child, _ = told(tmp_path)
    assert pid == second.pid and second.poll() is None
    assert other.poll() is None and psutil.pid_exists(others_child)

    # The parent alone is killed: its child, known by its environment, is what is left.
    second.kill()
    second.wait()
    third = start(driver_env)
    assert told(tmp_path)[0] == third.pid and gone(second_child)
    for process in (*psutil.Process(third.pid).children(), *psutil.Process(other.pid).children()):
        process.kill()
    for process in (third, other):
        process.wait(10)


def test_of_drivers_that_start_at_once_one_is_left(driver_env: dict[str, str], tmp_path: Path) -> None:
    started = [start(driver_env) for _ in range(4)]
    while told(tmp_path)[0] != started[3].pid:
        pass
    for process in started[:3]:
        process.wait(10)
    assert [process.poll() for process in started[:3]] == [-signal.SIGKILL] * 3
    assert started[3].poll() is None
    for process in psutil.Process(started[3].pid).children():
        process.kill()
    started[3].wait(10)


def test_a_driver_waits_until_the_master_has_let_go(driver_env: dict[str, str], tmp_path: Path) -> None:
    FakeMaster.active = [{"id": "app-1", "name": NAME}, {"id": "app-2", "name": "another"}]
    process = start(driver_env)
    time.sleep(1.5)
    assert process.poll() is None and not (tmp_path / "told").exists()
    FakeMaster.active = FakeMaster.active[1:]
    _, child, _ = told(tmp_path)
    process.kill()
    process.wait()
    os.kill(child, signal.SIGKILL)


def test_an_application_of_another_machine_is_not_doubled(driver_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    FakeMaster.active = [{"id": "app-1", "name": NAME}]
    monkeypatch.setattr(spark_driver, "MASTER_S", 0.5)
    for name in ("SHUDL_SPARK_NAME", "SHUDL_SPARK_MASTER_UI", "NO_PROXY"):
        monkeypatch.setenv(name, driver_env[name])
    with pytest.raises(SystemExit, match=f"{NAME} runs already as app-1"):
        spark_driver.wait_for_master()
    monkeypatch.setenv("SHUDL_SPARK_MASTER_UI", "http://127.0.0.1:9")
    with pytest.raises(SystemExit, match=r"the Spark master does not answer at http://127\.0\.0\.1:9"):
        spark_driver.wait_for_master()
