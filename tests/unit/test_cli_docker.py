"""The command line in a container: what it makes of Docker's answers. A server that speaks Docker's API stands in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from include.cli import up as up_module
from include.cli.board import ServiceBoard
from include.cli.console import CliError
from include.cli.containers import Look
from include.cli.source import add
from include.cli.state import PUBLIC_URL, airflow_url, on_host
from include.cli.up import BOOTSTRAP, CONTROL, STOP, show_stops, start_control_plane, stop_by_airflow
from include.platform import settings as settings_module
from include.platform.airflow import ADMIN
from include.platform.catalog import DOCKER, control_plane
from include.platform.containers import PROJECT
from include.platform.doctor import SECRETS
from include.platform.endpoints import local_endpoints
from include.platform.settings import ROOT, Settings
from tests.http_json import Answers, serve

RUN = """
import sys
from pathlib import Path
from include.platform import settings
settings.DOCKER_SECRETS = Path(sys.argv.pop(1))
settings.DOCKER_CA = settings.DOCKER_SECRETS / "ca.crt"
from include.cli.app import main
main()
"""
"""The command line, with another folder in the place of /run/secrets."""


class Docker:
    """Answers inspect and logs as Docker does. Containers that it was not told of were not created."""

    def __init__(self) -> None:
        self.containers: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, list[str]] = {}
        docker = self

        class Handler(Answers):
            def do_GET(self) -> None:
                asked = urlsplit(self.path)
                _, _, _, name, deed = asked.path.split("/")
                if name not in docker.containers:
                    self.answer({"message": f"No such container: {name}"}, 404)
                elif deed == "json":
                    self.answer(docker.containers[name])
                else:
                    lines = docker.logs.get(name, [])[-int(parse_qs(asked.query)["tail"][0]) :]
                    frames = [line.encode() + b"\n" for line in lines]
                    self.answer(b"".join(b"\1\0\0\0" + len(frame).to_bytes(4, "big") + frame for frame in frames))

        self.server = serve(Handler)
        self.url = f"tcp://127.0.0.1:{self.server.server_port}"

    def has(self, name: str, status: str, ports: dict[int, int] | None = None, **state: Any) -> None:
        born = (datetime.now(UTC) - timedelta(seconds=90)).strftime("%Y-%m-%dT%H:%M:%S.123456789Z")
        bound = {f"{port}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(own)}] for port, own in (ports or {}).items()}
        self.containers[f"{PROJECT}-{name}-1"] = {
            "State": {"Status": status, "StartedAt": born, "ExitCode": 0, "OOMKilled": False, **state},
            "HostConfig": {"PortBindings": bound},
            "Config": {"Tty": False},
        }


@pytest.fixture
def docker() -> Iterator[Docker]:
    made = Docker()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets-given"
    folder.mkdir()
    for name in SECRETS:
        (folder / name).write_text(f"the {name}")
    return folder


def shudl(*arguments: str, docker: Docker, secrets: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT), "SHUDL_RUNTIME": "docker", "SHUDL_HOME": str(secrets.parent / "data")}
    env |= {"DOCKER_FILTER_URL": docker.url, "COLUMNS": "200"} | variables
    return subprocess.run(
        [sys.executable, "-c", RUN, str(secrets), *arguments], env=env, cwd=ROOT, capture_output=True, text=True, timeout=60
    )


# ── Docker's words in ours ───────────────────────────────────────────────────────────────────────────────


def test_a_service_is_as_its_worst_container(docker: Docker) -> None:
    look = Look(docker.url)
    assert look.info("kafka")["state"] == "stopped"
    assert "COMPOSE_PROFILES" in look.info("kafka")["detail"]
    docker.has("kafka", "running")
    info = look.info("kafka")
    assert (info["state"], info["pid"]) == ("running", None)
    assert 85 < info["uptime_s"] < 120
    docker.has("kafka", "restarting", ExitCode=137, OOMKilled=True)
    info = look.info("kafka")
    assert (info["state"], info["uptime_s"], info["detail"]) == ("restarting", 0, "ended with code 137")
    assert "memory limit" in info["killed"]


def test_ports_of_the_host(docker: Docker) -> None:
    docker.has("s3", "exited", {9000: 9443, 9001: 9001})
    look = Look(docker.url)
    assert look.published("s3") == {9000: 9443, 9001: 9001}
    assert look.published("nessie") == {}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://s3:9000", "https://localhost:9443"),
        ("postgresql://flights@haproxy:15000/flights", "postgresql://flights@localhost:15000/flights"),
        ("kafka:9092", "kafka:9092"),
        ("kafka:9000", "localhost:9443"),
        ("http://spark-master:8088", "http://spark-master:8088"),
    ],
)
def test_addresses_are_the_hosts_where_a_port_is_published(url: str, expected: str) -> None:
    assert on_host(url, {9000: 9443, 15000: 15000}) == expected
    assert on_host("kafka:9092,kafka2:9092", {9092: 9092}) == "kafka:9092,kafka2:9092"


def test_where_people_open_airflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s = Settings(tmp_path, 22000, runtime="docker")
    monkeypatch.delenv(PUBLIC_URL, raising=False)
    assert airflow_url(s) == "https://localhost:8280"
    monkeypatch.setenv(PUBLIC_URL, "https://lake.example.org")
    assert airflow_url(s) == "https://lake.example.org"
    assert airflow_url(Settings(tmp_path, 22000)) == "http://127.0.0.1:22000", "on one machine it is where it listens"


def test_a_source_on_localhost_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="localhost is this container") as caught:
        add("postgresql://me@localhost/shop", None, [], Settings(tmp_path, 22000, runtime="docker"))
    assert caught.value.code == 2


def test_the_secrets_that_doctor_looks_for_are_those_in_use(
    tmp_path: Path, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    read = Settings.secret_file
    monkeypatch.setattr(settings_module, "DOCKER_SECRETS", secrets)
    monkeypatch.setattr(Settings, "secret_file", lambda self, name: used.append(name) or read(self, name))
    local_endpoints(Settings(tmp_path / "data", 22000, runtime="docker"))
    assert {*used, "airflow_db_airflow", f"airflow_{ADMIN}"} == set(SECRETS)


# ── up and down, by Airflow ──────────────────────────────────────────────────────────────────────────────


def test_airflow_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s = Settings(tmp_path, 22000, runtime="docker")
    ill = {"airflow-scheduler": 2}

    def reasons(names: list[str], *_: object, **__: object) -> dict[str, str]:
        for name in names:
            ill[name] = ill.get(name, 0) - 1
        return {name: "Airflow says: never seen" if ill[name] > 0 else "" for name in names}

    monkeypatch.setattr(up_module, "local_endpoints", lambda s: {})
    monkeypatch.setattr(up_module, "reasons", reasons)
    with ServiceBoard("Airflow", CONTROL) as board:
        start_control_plane(s, board, time.monotonic() + 30)
        assert {row.state for row in board.rows.values()} == {"healthy"}
    monkeypatch.setattr(up_module, "reasons", lambda names, *_, **__: dict.fromkeys(names, "no such host"))
    with pytest.raises(CliError, match="airflow-db is not healthy after") as caught, ServiceBoard("Airflow", CONTROL) as board:
        start_control_plane(s, board, time.monotonic() + 0.5)
    assert "no such host" in str(caught.value)
    assert "logs airflow-db; make up starts Airflow" in str(caught.value)
    assert not list(tmp_path.iterdir()), "no supervisord was thought of"


class Airflow:
    """Does what it is told, and keeps it."""

    url = "https://airflow-api-server:8280"
    told: ClassVar[list[tuple[str, ...]]] = []

    def __init__(self, s: Settings) -> None:
        self.settings = s

    def __enter__(self) -> Airflow:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait_for_dags(self, dag_ids: set[str], timeout_s: float) -> None:
        pass

    def dags(self) -> list[dict[str, Any]]:
        return [{"dag_id": STOP, "is_paused": False}]

    def latest_run(self, dag_id: str) -> dict[str, Any] | None:
        return {"dag_run_id": "manual__2026-01-01T00:00:00+00:00", "state": "running"} if dag_id == BOOTSTRAP else None

    def request(self, method: str, path: str, **kwargs: Any) -> None:
        self.told.append((method, path, kwargs["json"]["state"]))

    def trigger(self, dag_id: str, conf: object) -> str:
        self.told.append(("trigger", dag_id))
        return "run"

    def wait(self, dag_id: str, run_id: str, timeout_s: float, on_change: Any) -> str:
        on_change({}, [{"task_id": "kafka", "state": "success"}, {"task_id": "trino", "state": "success"}])
        return "success"


def test_a_bootstrap_under_way_ends_before_services_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(up_module, "AirflowClient", Airflow)
    monkeypatch.setattr(up_module, "seen", lambda name, s: {"state": "running" if name == "kafka" else "stopped"})
    stop_by_airflow(Settings(tmp_path, 22000, runtime="docker"))
    run = f"/dags/{BOOTSTRAP}/dagRuns/manual__2026-01-01T00%3A00%3A00%2B00%3A00"
    assert Airflow.told == [("PATCH", run, "failed"), ("trigger", STOP)]
    out = capsys.readouterr().out
    assert "Stopped 1 services in" in out
    assert "make down ends it, too" in out
    assert "trino" not in out, "it did not run"
    monkeypatch.setattr(up_module, "seen", lambda name, s: {"state": "stopped"})
    Airflow.told.clear()
    stop_by_airflow(Settings(tmp_path, 22000, runtime="docker"))
    assert Airflow.told == [("PATCH", run, "failed")], "a bootstrap that has started nothing yet would still do so"
    assert capsys.readouterr().out.startswith("No service was running. Airflow goes on")


def test_stops_on_the_board() -> None:
    board = ServiceBoard("Stopping", ["kafka", "trino", "s3"])
    show_stops(board, [{"task_id": "kafka", "state": "running"}, {"task_id": "trino", "state": "skipped"}])
    assert [row.state for row in board.rows.values()] == ["stopping", "not ours to stop", "waiting"]


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────


def test_help_says_how_it_is_called(docker: Docker, secrets: Path) -> None:
    done = shudl("--help", docker=docker, secrets=secrets)
    assert done.returncode == 0
    assert "docker compose -f docker/compose.yaml run --rm cli up" in done.stdout
    assert "make down" in done.stdout
    assert "./shudl" not in done.stdout


def test_status_has_the_same_shape(docker: Docker, secrets: Path) -> None:
    docker.has("kafka", "exited")
    docker.has("trino", "exited", {8080: 18080})
    docker.has("nessie", "restarting", ExitCode=1)
    docker.logs["shudl-nessie-1"] = ["starting", "java.net.ConnectException: no database", "\tat java.base"]
    done = shudl("status", "--json", docker=docker, secrets=secrets)
    assert done.returncode == 3, done.stderr
    found = json.loads(done.stdout)
    services = {service["name"]: service for service in found["services"]}
    assert list(services) == [service.name for service in (*control_plane(docker=True), *DOCKER)]
    for service in services.values():
        assert set(service) == {"name", "title", "layer", "state", "healthy", "reason", "url", "pid", "uptime_s", "rss_mb"}
    assert (services["kafka"]["state"], services["kafka"]["reason"], services["kafka"]["pid"]) == ("stopped", "", None)
    assert services["trino"]["url"] == "https://localhost:18080"
    assert services["airflow-api-server"]["url"] == "https://localhost:8280"
    assert services["nessie"]["reason"] == "java.net.ConnectException: no database"
    assert services["grafana"]["state"] == "left out"
    assert "COMPOSE_PROFILES" in services["grafana"]["reason"]
    assert services["airflow-db"]["state"] == "unhealthy"
    assert services["airflow-db"]["reason"]
    people = shudl("status", docker=docker, secrets=secrets)
    assert people.returncode == 3
    assert "docker compose -f docker/compose.yaml logs nessie" in people.stdout
    assert people.stdout.count("COMPOSE_PROFILES") == 1, "one line for all that are left out for the same reason"


def test_logs_of_each_container(docker: Docker, secrets: Path) -> None:
    for number in (1, 2, 3):
        docker.has(f"etcd{number}", "running")
        docker.logs[f"shudl-etcd{number}-1"] = ["first", f"member {number} is ready"]
    done = shudl("logs", "etcd", "-n", "1", docker=docker, secrets=secrets)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["==> shudl-etcd1-1 <==", "member 1 is ready"]
    assert "first" not in done.stdout
    docker.has("trino", "created")
    done = shudl("logs", "trino", docker=docker, secrets=secrets)
    assert (done.returncode, done.stderr) == (1, "trino has logged nothing yet\n")


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (("logs", "kafka"), 1, "COMPOSE_PROFILES"),
        (("logs", "airflow-scheduler"), 1, "docker compose -f docker/compose.yaml logs airflow-scheduler"),
        (("logs", "etcd", "-f"), 2, "logs etcd1 etcd2 etcd3 --follow"),
        (("logs", "supervisord"), 2, "no such service"),
        (("sql", "postgres", "SELECT 1"), 3, "HAProxy (way to PostgreSQL) does not answer at haproxy:15000"),
        (("up", "--timeout", "10"), 1, "Nothing was started."),
    ],
)
def test_what_cannot_be_done_is_said(docker: Docker, secrets: Path, arguments: tuple[str, ...], code: int, named: str) -> None:
    done = shudl(*arguments, docker=docker, secrets=secrets)
    assert done.returncode == code, done.stderr
    assert named in done.stderr.replace("\n", " ")


def test_down_with_nothing_to_stop(docker: Docker, secrets: Path) -> None:
    done = shudl("down", docker=docker, secrets=secrets)
    assert (done.returncode, done.stdout) == (0, "Nothing was running.\n")


def test_down_without_airflow(docker: Docker, secrets: Path) -> None:
    docker.has("kafka", "running")
    done = shudl("down", docker=docker, secrets=secrets)
    assert done.returncode == 1
    assert "make down stops them without it" in done.stderr


def test_passwords_are_the_secrets(docker: Docker, secrets: Path) -> None:
    done = shudl("password", "trino", docker=docker, secrets=secrets)
    assert (done.returncode, done.stdout, done.stderr) == (0, "the trino\n", "user shudl\n")
    (secrets / "trino").unlink()
    done = shudl("password", "trino", docker=docker, secrets=secrets)
    assert done.returncode == 1
    assert "not given the secret trino" in done.stderr


def test_doctor_looks_at_what_the_container_was_given(docker: Docker, secrets: Path) -> None:
    (secrets / "mask_salt").unlink()
    done = shudl("doctor", "--json", docker=docker, secrets=secrets)
    assert done.returncode == 1
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["docker-filter"]["status"] == "ok"
    assert (checks["secrets"]["status"], checks["trust"]["status"]) == ("fail", "fail")
    assert checks["secrets"]["found"].endswith(": mask_salt")
    assert "ca.crt" in checks["trust"]["found"]
    assert "make check-docker" in checks["host"]["found"]
    done = shudl("doctor", docker=docker, secrets=secrets, DOCKER_FILTER_URL="tcp://127.0.0.1:1")
    assert "docker-filter does not answer" in done.stdout
