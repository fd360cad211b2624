"""What the bootstrap does with a service that this machine leaves out, and what a Spark task submits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowSkipException

from include.platform import jre
from include.platform.endpoints import local_endpoints
from include.platform.settings import settings
from include.platform.spark import SERVICE
from shudl.operators import StartService
from shudl.seeds import connection
from shudl.spark import SparkJob


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> None:
    for endpoint in local_endpoints().values():
        monkeypatch.setenv(f"AIRFLOW_CONN_{endpoint.conn_id.upper()}", connection(endpoint).as_json())


@pytest.fixture
def no_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jre, "spark_jre", lambda s: tmp_path / "empty")


def test_start_is_skipped_with_the_reason(connections: None, no_java: None, tmp_path: Path) -> None:
    for service in ("spark-master", "spark-worker"):
        with pytest.raises(AirflowSkipException, match=rf"{service} is left out: {tmp_path}/empty is not the home of a Java"):
            StartService(task_id="start", service=service).execute({})


def test_a_spark_of_the_users_needs_no_java_here(connections: None, no_java: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SHUDL_SPARK", '{"conn_type": "spark", "host": "spark.example", "port": 7077}')
    assert StartService(task_id="start", service="spark-worker").execute({}) == "external"


def test_a_job_is_submitted_to_the_connections_master(connections: None) -> None:
    task = SparkJob(task_id="job", application="job.py", name="a.b.c.-1", application_args=["x"], conf={"spark.cores.max": "1"})
    hook = task._get_hook()
    command = hook._build_spark_submit_command(task.application)
    assert command[0] == "spark-submit" and command[-2:] == ["job.py", "x"]
    options = dict(zip(command[1:-2:2], command[2:-2:2], strict=True))
    assert options == {
        "--master": f"spark://{settings.host}:{settings.port('spark')}",
        "--conf": "spark.cores.max=1",
        "--properties-file": str(settings.run("spark-driver") / "spark.conf"),
        "--name": "a.b.c.-1",
        "--deploy-mode": "client",
    }
    assert hook._env["SHUDL_SPARK_NAME"] == "a.b.c.-1"
    assert Path(hook._env["PATH"].split(os.pathsep)[0], "spark-submit") == SERVICE / "bin" / "spark-submit"
    secrets = (settings.secret("spark_auth"), settings.secret("s3_secret_key"))
    assert not [name for name, value in hook._env.items() if value in secrets]
