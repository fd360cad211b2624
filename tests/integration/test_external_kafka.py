"""A Kafka that the platform did not start, named by ``SHUDL_EXTERNAL``: it is only validated, and everything asks it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.platform.endpoints import Endpoint, own_endpoints
from include.platform.environment import service_environment
from include.platform.settings import ROOT, settings
from include.platform.supervisor import port_holder
from shudl.seeds import connection
from tests.dags.conftest import probe
from tests.live import Platform
from tests.ports import free_block

CONN_ID = "company_kafka"
LOOK = """
import json
from include.cli.state import survey
from include.platform.catalog import BY_NAME
from include.platform.checks import works
from include.platform.doctor import examine
from include.platform.endpoints import local_endpoints
from include.platform.environment import service_environment
from include.platform.supervisor import render_config
endpoints = local_endpoints()
(kafka,) = survey(["kafka"])
print(json.dumps({
    "works": works("kafka", endpoints),
    "state": kafka.state, "reason": kafka.reason, "url": kafka.url,
    "doctor": [[check.status, check.found] for check in examine() if check.name == "external services"],
    "started": [line for line in render_config().splitlines() if line.startswith("[program:")],
    "connect": service_environment("connect")["KAFKA_BOOTSTRAP"],
    "airflow": service_environment("airflow-scheduler").get("SHUDL_EXTERNAL"),
}))
"""
TASKS = """
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from shudl.operators import CheckExternal, CheckService, StartService, StopService, WaitForService
print('>', CheckExternal(task_id="external").execute({}))
print('>', StartService(task_id="start", service="kafka").execute({}))
print('>', WaitForService(task_id="healthy", service="kafka").execute({}))
print('>', CheckService(task_id="works", service="kafka").execute({})["brokers"])
try:
    StopService(task_id="stop", service="kafka", services="").execute({})
except AirflowSkipException as skipped:
    print('>', skipped)
"""


@pytest.fixture(scope="module")
def bootstrap_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Kafka of the test's own: its ports, its folder."""
    folder, base = tmp_path_factory.mktemp("company"), free_block()
    port = base + 40
    variables = {"KAFKA_DATA_DIR": str(folder / "data"), "RUN_DIR": str(folder / "run")}
    variables |= {"KAFKA_PORT": str(port), "KAFKA_CONTROLLER_PORT": str(port + 1)}
    env = {**os.environ, **service_environment("kafka"), **variables}
    (folder / "run").mkdir()
    with (folder / "log").open("wb") as log:
        command = ["bash", "docker/services/kafka/entrypoint.sh"]
        kafka = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 90
        while port_holder(port) is None:
            assert kafka.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
            time.sleep(0.2)
        yield f"{settings.host}:{port}"
    finally:
        kafka.terminate()
        kafka.wait(60)


def run(script: str, bootstrap: str, **variables: str) -> str:
    """What a program of the platform prints where Kafka is external."""
    env = {**os.environ, "SHUDL_EXTERNAL": f"kafka={CONN_ID}", "KAFKA_BOOTSTRAP": bootstrap, **variables}
    env["PYTHONPATH"] = f"{ROOT}:{ROOT / 'plugins'}"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def company(bootstrap: str) -> Endpoint:
    return Endpoint(CONN_ID, "kafka", "", 0, extra={"bootstrap.servers": bootstrap})


def test_the_command_line_asks_the_connection(platform: Platform, bootstrap_server: str) -> None:
    missing = json.loads(run(LOOK.replace('works("kafka", endpoints)', "0"), bootstrap_server))
    told = f"Airflow has no connection {CONN_ID}; make it in the UI under Admin, Connections"
    assert missing["doctor"] == [["fail", f"kafka is external: {told}"]]
    assert missing["state"] == "unhealthy" and told in missing["reason"]

    platform.airflow.set_connection(company(bootstrap_server))
    seen = json.loads(run(LOOK, bootstrap_server))
    assert seen["works"]["brokers"] == 1
    assert (seen["state"], seen["url"]) == ("external", bootstrap_server)
    assert seen["doctor"] == [["ok", f"kafka by {CONN_ID}"]]
    assert "[program:connect]" in seen["started"] and "[program:kafka]" not in seen["started"]
    assert seen["connect"] == bootstrap_server and seen["airflow"] == f"kafka={CONN_ID}"

    ((status, found),) = json.loads(run(LOOK, "other:1"))["doctor"]
    assert status == "fail" and f"says {bootstrap_server}, and KAFKA_BOOTSTRAP says other:1" in found


def test_the_bootstraps_tasks_only_validate_it(bootstrap_server: str) -> None:
    connections = {e.conn_id: connection(e).as_json() for e in (*own_endpoints().values(), company(bootstrap_server))}
    variables = {f"AIRFLOW_CONN_{conn_id.upper()}": text for conn_id, text in connections.items()}
    said = [line[2:] for line in run(TASKS, bootstrap_server, **variables).splitlines() if line.startswith("> ")]
    not_ours = f"kafka at {bootstrap_server} is not ours to stop"
    assert said == [str({"kafka": CONN_ID}), "external", "None", "1", not_ours]


def test_the_bootstrap_looks_at_connections_before_anything_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SHUDL_EXTERNAL", f"nessie={CONN_ID}")
    (tmp_path / "platform_bootstrap.py").write_text((ROOT / "dags" / "platform_bootstrap.py").read_text())
    tasks = probe(tmp_path)["platform_bootstrap.py"]["dags"]["platform_bootstrap"]["tasks"]
    assert tasks["external"]["upstream"] == []
    assert tasks["catalog.nessie.start"]["upstream"] == ["external"], "it needs nothing of ours"
    assert tasks["integration.connect.start"]["upstream"] == ["messaging.kafka.works"]
    starts = {name: task["upstream"] for name, task in tasks.items() if name.endswith(".start")}
    assert all(upstream == ["external"] or "external" not in upstream for upstream in starts.values())
    assert not [name for name, upstream in starts.items() if not upstream], "what starts first waits for it"
