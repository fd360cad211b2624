"""The platform of the tests: its own state folder and port block, the real engines, the real DAGs.

Fixtures build on each other, each once a session: ``platform`` (everything up and validated), ``flights`` (the demo's
database loaded and mirrored in the lake), ``published`` (its marts in ClickHouse). ``platform.traffic()`` is live load.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from trino.exceptions import TrinoQueryError

from include.cdc.coverage import wait_until_covered
from include.cdc.pipelines import Pipeline, by_source
from include.demo.flights import position
from include.platform import trino
from include.platform.airflow import AirflowClient
from include.platform.endpoints import Endpoints, local_endpoints
from include.platform.evidence import latest_evidence
from include.platform.settings import ROOT, settings
from include.platform.supervisor import Supervisor

FROM_DAY = "2013-12-01"
COMMITTED_MEANWHILE = ("is not an ancestor of", '"org.apache.iceberg.Table.snapshot(long)" is null')
"""What Trino says of a snapshot that it does not know yet, before it writes anything."""


def shudl(*args: str, timeout_s: float = 300, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line with ``args``, and ``variables`` in its environment."""
    return subprocess.run(
        [sys.executable, "-m", "include.cli", *args],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
    )


@dataclass
class Platform:
    """The running platform. Every wait has a deadline."""

    endpoints: Endpoints
    airflow: AirflowClient
    supervisor: Supervisor

    @property
    def source(self) -> str:
        """Connection string of the flights database."""
        return self.endpoints["flights_db"].conninfo

    def in_lake(self, statement: str, timeout_s: float = 120) -> list[tuple[Any, ...]]:
        """Run a statement on the lake; again while Trino refuses it because a stream commits to the table meanwhile."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                with trino.connect(self.endpoints, "lake") as connection:
                    cursor = connection.cursor()
                    cursor.execute(statement)
                    return [tuple(row) for row in cursor.fetchall()]
            except TrinoQueryError as error:
                if time.monotonic() > deadline or not any(words in str(error) for words in COMMITTED_MEANWHILE):
                    raise

    def start_dag(self, dag_id: str, conf: dict[str, Any] | None = None) -> str:
        self.airflow.unpause(dag_id)
        return self.airflow.trigger(dag_id, conf)

    def wait_dag(self, dag_id: str, run_id: str, timeout_s: float = 300) -> None:
        """Until the run succeeds; fails with the end of the failed tasks' logs."""
        state = self.airflow.wait(dag_id, run_id, timeout_s=timeout_s)
        if state != "success":
            failed = [t for t in self.airflow.task_instances(dag_id, run_id) if t["state"] == "failed"]
            logs = [
                f"{t['task_id']}:\n{self.airflow.task_log(dag_id, run_id, t['task_id'], t['try_number'])[-3000:]}" for t in failed
            ]
            pytest.fail(f"{dag_id} {run_id} is {state}\n" + "\n".join(logs), pytrace=False)

    def run_dag(self, dag_id: str, conf: dict[str, Any] | None = None, timeout_s: float = 300) -> dict[str, Any] | None:
        """Run the DAG to success; what it left as evidence."""
        run_id = self.start_dag(dag_id, conf)
        self.wait_dag(dag_id, run_id, timeout_s)
        evidence = latest_evidence(dag_id)
        return evidence if evidence and evidence["run_id"] == run_id else None

    @contextmanager
    def traffic(self, rate: int, seconds: int) -> Iterator[None]:
        """The replay goes on at ``rate`` changes a second within the block, for ``seconds``; it has ended after it."""
        before = position(self.source).event_number
        run_id = self.start_dag("demo_replay", {"rate": rate, "max_events": rate * seconds})
        self.eventually(lambda: position(self.source).event_number > before, 60, "the replay has begun")
        yield
        self.wait_dag("demo_replay", run_id, seconds + 180)

    def cover(self, timeout_s: float = 300) -> dict[str, Any]:
        return wait_until_covered(flights_pipeline(), self.endpoints, timeout_s=timeout_s)

    def prove(self, timeout_s: float = 400) -> dict[str, Any]:
        """Run ``prove_flights`` to success and return its evidence: nothing is unresolved."""
        evidence = self.run_dag("prove_flights", timeout_s=timeout_s)
        assert evidence is not None and evidence["unresolved"] == 0
        return evidence

    @staticmethod
    def eventually(condition: Any, timeout_s: float, what: str) -> None:
        """Wait until ``condition()`` is true."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
            time.sleep(0.5)

    def jobs(self) -> list[dict[str, Any]]:
        """Flink's jobs that are not over."""
        jobs = httpx.get(f"{self.endpoints['shudl_flink'].url}/jobs/overview", timeout=10).json()["jobs"]
        return [job for job in jobs if job["state"] in ("RUNNING", "CREATED", "RESTARTING", "INITIALIZING")]


def flights_pipeline() -> Pipeline:
    return by_source("flights")


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """Everything up and validated, by ``./shudl up``; down at the end."""
    done = shudl("up", timeout_s=600)
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
    with AirflowClient() as airflow:
        yield Platform(local_endpoints(), airflow, Supervisor())
    done = shudl("down", timeout_s=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not Supervisor().running(), f"supervisord still runs; state in {settings.home}"


@pytest.fixture(scope="session")
def flights(platform: Platform) -> Platform:
    """The flights database loaded and mirrored."""
    platform.run_dag("demo_load", {"from_day": FROM_DAY}, timeout_s=120)
    platform.run_dag("cdc_flights", timeout_s=300)
    platform.cover()
    return platform


@pytest.fixture(scope="session")
def published(flights: Platform) -> Platform:
    """The marts built and served, while the replay ran."""
    with flights.traffic(rate=100, seconds=60):
        flights.run_dag("publish_flights", timeout_s=600)
    return flights
