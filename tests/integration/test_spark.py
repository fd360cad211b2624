"""PySpark applications as tasks: a name never has two, whatever becomes of the process that submits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from itertools import pairwise
from pathlib import Path

import pytest

from include.platform.endpoints import Endpoints
from include.platform.settings import ROOT
from include.platform.spark import Master, web_ui
from include.platform.trino import connect
from shudl.seeds import connection
from tests.live import Platform

NAME = f"test.spark.{uuid.uuid4()}"
TABLE = "audit.test_spark"
ROWS = 16
JOB = f"""
import time
from pyspark.sql import SparkSession
from pyspark.sql.functions import udf

spark = SparkSession.builder.getOrCreate()
slow = udf(lambda n: (time.sleep(0.5), f"n{{n}}")[1])
spark.sql("CREATE NAMESPACE IF NOT EXISTS audit")
spark.sql("CREATE TABLE IF NOT EXISTS {TABLE} (n BIGINT, text STRING)")
print("appending", flush=True)
spark.range({ROWS}, numPartitions=2).select("id", slow("id")).toDF("n", "text").writeTo("{TABLE}").append()
"""
"""Appends for some seconds, and commits at the end: each time that it comes to its end adds its rows."""

TASK = f"""
import sys
from shudl.spark import SparkJob

quick = {{f"spark.{{process}}.extraJavaOptions": "-XX:TieredStopAtLevel=1" for process in ("driver", "executor")}}
SparkJob(task_id="job", application=sys.argv[1], name="{NAME}", conf=quick).execute({{}})
"""


class Task:
    """A process that does what an Airflow worker does with the task."""

    def __init__(self, job: Path, endpoints: Endpoints) -> None:
        connections = {f"AIRFLOW_CONN_{e.conn_id.upper()}": connection(e).as_json() for e in endpoints.values()}
        env = {**os.environ, **connections, "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}", "AIRFLOW_HOME": str(job.parent)}
        self.log = job.with_name(f"{time.monotonic_ns()}.log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", TASK, str(job)], cwd=job.parent, env=env, stdout=log, stderr=subprocess.STDOUT
            )

    def appends(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        return "appending" in self.log.read_text()


@pytest.fixture
def table(platform: Platform):
    yield
    with connect(platform.endpoints, "lake") as trino:
        cursor = trino.cursor()
        cursor.execute(f"DROP TABLE IF EXISTS {TABLE}")
        cursor.fetchall()


def test_a_name_has_one_driver_and_its_rows_are_written_once(platform: Platform, table: None, tmp_path: Path) -> None:
    """The first task loses its driver to the second (as when Airflow takes a worker for dead), the second is killed."""
    job = tmp_path / "job.py"
    job.write_text(JOB)
    master = Master(web_ui(platform.endpoints["shudl_spark"]))
    first = Task(job, platform.endpoints)
    platform.eventually(first.appends, 180, "the first task appends")
    second = Task(job, platform.endpoints)
    platform.eventually(lambda: first.process.poll() is not None, 60, "the first task has ended")
    platform.eventually(second.appends, 180, "the second task appends")
    second.process.kill()
    third = Task(job, platform.endpoints)
    assert third.process.wait(240) == 0, third.log.read_text()[-3000:]
    assert first.process.returncode == 1, first.log.read_text()[-3000:]
    assert second.process.wait(10) == -signal.SIGKILL

    assert not master.applications(NAME)
    ran = sorted((app["starttime"], app["duration"]) for app in master.state()["completedapps"] if app["name"] == NAME)
    assert len(ran) == 3
    assert all(began + lasted <= following for (began, lasted), (following, _) in pairwise(ran)), ran
    with connect(platform.endpoints, "lake") as trino:
        cursor = trino.cursor()
        cursor.execute(f"SELECT count(*), count(DISTINCT text) FROM {TABLE}")
        assert cursor.fetchall() == [[ROWS, ROWS]]
