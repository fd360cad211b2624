"""One of each that are several is killed while flights depart and marts are built: the rest goes on, nothing is lost.

The whole platform with the profile ``ha``, from empty volumes, started by Compose alone: on demand (``make test-ha``).
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
import trino

from include.cdc.pipelines import COMMITTED_AT, load_all
from include.platform.airflow import AirflowClient, AirflowError
from include.platform.evidence import write_evidence
from include.platform.settings import ROOT
from tests.compose_platform import PLATFORM, Compose, taken_down
from tests.ha.conftest import GOAL, WANTED

SMALL = {
    "KAFKA_HEAP": "384m",
    "TRINO_HEAP": "1g",
    "TRINO_QUERY_MEMORY": "400MB",
    "CONNECT_HEAP": "512m",
    "FLINK_TASKMANAGER_HEAP": "1400m",
}
UP_S, DAG_S, FLOWS_S, PROOF_S = 1200, 600, 300, 900
CAUGHT_UP_S = 1200
"""How long the mirrors may take for the rows that are there before the first change: 308,641 flights on a small machine."""
TRAFFIC = {"rate": 20, "max_events": 8000}
"""Changes a second, and how many: seven minutes. The replay goes on where it was."""
CA = ROOT / "docker" / "certificates" / "ca.crt"
FIGURES: dict[str, float] = {}
REPLAY = "demo_replay"
pytestmark = pytest.mark.timeout(3600)


@dataclass
class AtHost:
    """What :class:`AirflowClient` asks its settings."""

    address: str

    def url(self, name: str) -> str:
        return self.address

    def secret(self, name: str) -> str:
        return (ROOT / "docker" / "secrets" / name).read_text().strip()


@dataclass
class Several:
    """The platform, its Airflow, and the newest change that the lake has."""

    compose: Compose
    airflow: AirflowClient
    replay: str = ""

    def keep_logs(self, folder: Any) -> Any:
        return self.compose.keep_logs(folder)

    def traffic(self) -> None:
        """Flights depart from now on; a replay that ended did so well."""
        state = self.airflow.run(REPLAY, self.replay)["state"] if self.replay else "success"
        assert state != "failed", self.airflow.failures(REPLAY, self.replay)
        if state == "success":
            self.replay = self.start(REPLAY, TRAFFIC)
            within(DAG_S, "the replay does not begin", lambda: bool(running(self, REPLAY, self.replay)))

    def newest(self) -> datetime:
        """When the newest change of the flights that Trino sees in the lake was committed to the source."""
        (pipeline,) = load_all()
        table = f"lake.{pipeline.iceberg_table('public.flights')}"
        password = AtHost("").secret("trino")
        port = int(self.compose.compose("port", "trino", "8080").strip().rpartition(":")[2])
        auth = trino.auth.BasicAuthentication("shudl", password)
        with trino.dbapi.connect("localhost", port, "shudl", http_scheme="https", verify=str(CA), auth=auth) as connection:
            cursor = connection.cursor()
            cursor.execute(f'SELECT to_unixtime(max("{COMMITTED_AT}")) FROM {table}')
            (seconds,) = cursor.fetchone()
        return datetime.fromtimestamp(seconds or 0, UTC)

    def flows_within(self, s: float, since: datetime) -> None:
        """A change committed after ``since`` is in the lake."""
        within(s, f"no change of after {since} is in the lake", lambda: self.newest() > since)

    def run(self, dag_id: str, conf: dict[str, Any] | None = None, timeout_s: float = DAG_S) -> None:
        run_id = self.start(dag_id, conf)
        assert self.airflow.wait(dag_id, run_id, timeout_s) == "success", self.airflow.failures(dag_id, run_id)

    def start(self, dag_id: str, conf: dict[str, Any] | None = None) -> str:
        with suppress(AirflowError):
            self.airflow.unpause(dag_id)
        return self.airflow.trigger(dag_id, conf)

    def healthy_within(self, s: float, name: str) -> None:
        def healthy() -> bool:
            asked = self.compose.run("docker", "inspect", "--format", "{{.State.Health.Status}}", f"shudl-{name}-1")
            return asked.stdout.strip() == "healthy"

        within(s, f"{name} is not healthy", healthy)


def within(s: float, otherwise: str, done: Callable[[], bool]) -> None:
    deadline, reason = time.monotonic() + s, ""
    while True:
        try:
            if done():
                return
        except Exception as error:  # what is asked may be away as well
            reason = f": {type(error).__name__}: {error}"
        assert time.monotonic() < deadline, f"{otherwise} within {s:.0f} s{reason}"
        time.sleep(1)


def unhealthy(compose: Compose) -> list[str]:
    states = {name: one["State"] for name, one in compose.containers().items()}
    return [name for name, state in states.items() if "Health" in state and state["Health"]["Status"] != "healthy"]


@pytest.fixture(scope="module")
def several() -> Iterator[Several]:
    """Everything up with ``ha``, the demo's database loaded, its mirrors made, its days replayed from now on."""
    compose = Compose("ha", SMALL)
    with taken_down(WANTED, GOAL, compose), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(CA))
        patch.setenv("REQUESTS_CA_BUNDLE", str(CA))  # else one of the environment's goes before what Trino's client is told
        if not os.environ.get("SHUDL_TEST_KEEP"):
            compose.make("secrets", "certificates")
            begun = time.monotonic()
            compose.compose("up", "-d", timeout_s=UP_S)
            within(UP_S, "not everything is healthy", lambda: not unhealthy(compose))
            FIGURES["compose up"] = round(time.monotonic() - begun, 1)
        port = compose.compose("port", "airflow-proxy", "8280").strip().rpartition(":")[2]
        with AirflowClient(AtHost(f"https://localhost:{port}"), timeout_s=60) as airflow:
            there = Several(compose, airflow)
            airflow.wait_for_dags({"cdc_flights", "demo_load", REPLAY, "publish_flights", "prove_flights"}, 180)
            there.run("demo_load", {"from_day": "2013-12-01"})
            there.run("cdc_flights")
            there.traffic()
            there.flows_within(CAUGHT_UP_S, datetime.now(UTC))
            yield there
            write_evidence("several", f"{int(time.time())}", {"seconds": FIGURES})
            print(FIGURES)


@pytest.fixture
def killed(several: Several) -> Iterator[Callable[[str], datetime]]:
    """Kill a container, which then stays down until the test's end."""
    down: list[str] = []

    def kill(name: str) -> datetime:
        several.compose.compose("kill", name)
        down.append(name)
        return datetime.now(UTC)

    yield kill
    for name in down:
        several.compose.compose("start", name)
        several.healthy_within(300, name)


@pytest.mark.parametrize("name", ["kafka", "flink-taskmanager"])
def test_changes_flow_without_it(name: str, several: Several, killed: Callable[[str], datetime]) -> None:
    """The broker that leads what was made first; a task manager with jobs."""
    several.traffic()
    since = killed(name)
    several.flows_within(FLOWS_S, since)
    FIGURES[name] = (datetime.now(UTC) - since).total_seconds()


def test_marts_are_built_with_one_worker_of_trino(several: Several, killed: Callable[[str], datetime]) -> None:
    run_id = several.start("publish_flights")
    within(DAG_S, "dbt does not run", lambda: bool(running(several, "publish_flights", run_id)))
    since = killed("trino-worker1")
    assert several.airflow.wait("publish_flights", run_id, DAG_S) == "success", several.airflow.failures(
        "publish_flights", run_id
    )
    FIGURES["trino-worker1: publish_flights"] = (datetime.now(UTC) - since).total_seconds()


def running(several: Several, dag_id: str, run_id: str) -> list[dict[str, Any]]:
    return [t for t in several.airflow.task_instances(dag_id, run_id) if t["state"] == "running"]


@pytest.mark.parametrize("name", ["airflow-scheduler", "airflow-api-server"])
def test_runs_finish_without_it(name: str, several: Several, killed: Callable[[str], datetime]) -> None:
    since = killed(name)
    several.run("cdc_flights")
    FIGURES[f"{name}: cdc_flights"] = (datetime.now(UTC) - since).total_seconds()


def test_the_other_worker_takes_over_the_replay(several: Several, killed: Callable[[str], datetime]) -> None:
    several.traffic()
    (replay,) = running(several, REPLAY, several.replay)
    since = killed(replay["hostname"])
    several.flows_within(FLOWS_S, datetime.now(UTC))
    FIGURES["airflow-worker: replay"] = (datetime.now(UTC) - since).total_seconds()
    (again,) = running(several, REPLAY, several.replay)
    assert (again["try_number"], again["hostname"]) > (replay["try_number"], "") and again["hostname"] != replay["hostname"]


def test_a_restarted_job_manager_gets_its_jobs_back_from_nobody(several: Several, killed: Callable[[str], datetime]) -> None:
    """Its jobs are gone; the watcher in the triggerer sees it, long before the five minutes after which the DAG runs anyway."""
    several.traffic()
    killed("flink-jobmanager")
    time.sleep(5)
    several.compose.compose("start", "flink-jobmanager")
    since = datetime.now(UTC)
    several.flows_within(FLOWS_S, since)
    FIGURES["flink-jobmanager"] = (datetime.now(UTC) - since).total_seconds()
    events = several.airflow.request("GET", "/assets/events", params={"order_by": "-timestamp", "limit": 20})["asset_events"]
    assert [event for event in events if "forgotten" in str(event["extra"])], "the watcher said nothing"


def test_an_application_goes_on_with_one_worker_of_spark(several: Several, killed: Callable[[str], datetime]) -> None:
    program = (
        "from include.platform.checks import works; from include.platform.endpoints import local_endpoints; "
        "print(works('spark-worker', local_endpoints()))"
    )
    trusted = [f"-e{name}=/run/secrets/ca.crt" for name in ("SSL_CERT_FILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")]
    java = {"trustStore": "/run/secrets/truststore.p12", "trustStoreType": "PKCS12"}
    trusted.append("-eJAVA_TOOL_OPTIONS=" + " ".join(f"-Djavax.net.ssl.{name}={value}" for name, value in java.items()))
    command = [str(PLATFORM), "compose", "run", "--rm", "-T", *trusted, "--entrypoint", "tini -- python -P -c", "cli", program]
    running = subprocess.Popen(
        command, cwd=ROOT, env=several.compose.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    time.sleep(20)
    killed("spark-worker2")
    said, _ = running.communicate(timeout=DAG_S)
    assert running.returncode == 0 and "'rows': 100" in said, said


def test_the_replay_ends_and_nothing_was_lost(several: Several) -> None:
    assert several.airflow.wait(REPLAY, several.replay, DAG_S) == "success", several.airflow.failures(REPLAY, several.replay)
    begun = time.monotonic()
    several.run("prove_flights", timeout_s=PROOF_S)  # fails when one row differs
    FIGURES["prove_flights"] = round(time.monotonic() - begun, 1)
