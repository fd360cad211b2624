"""What Airflow makes of the DAG files. Airflow gets a home that is not the user's, and no database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from include.platform.settings import ROOT, settings
from include.serving.manifest import make_manifests

os.environ["AIRFLOW_HOME"] = str(settings.data("airflow-dags"))
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"


def probe(dags: Path) -> dict[str, Any]:
    """What :mod:`tests.dags.probe` sees in each file of a folder, by file name."""
    script = Path(__file__).with_name("probe.py")
    command = [sys.executable, "-P", str(script), str(dags), str(ROOT / "plugins")]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=dags, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def files() -> dict[str, Any]:
    make_manifests()
    return probe(ROOT / "dags")


@pytest.fixture(scope="session")
def dags(files: dict[str, Any]) -> dict[str, Any]:
    return {dag_id: dag for file in files.values() for dag_id, dag in file["dags"].items()}
