"""Batches and files on the Compose platform: a connector is installed in its container, and files go where users put them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.platform.settings import ROOT
from tests.compose_platform import PLATFORM, PROJECT, VERSION, Compose
from tests.declarative import manifest

PIPELINE = ROOT / "include" / "pipelines" / "test_people.yml"
SERVED_S = 400
PEOPLE = [{"id": n, "name": f"person {n}", "born": f"19{n:02d}-01-01"} for n in range(60)]
MANIFEST = manifest(
    "people",
    requester={"url_base": "http://people-api:8000", "path": "people.json"},
    field_path=[],
    properties={
        "id": {"type": "integer"},
        "name": {"type": ["null", "string"]},
        "born": {"type": ["null", "string"], "format": "date"},
    },
)


@pytest.fixture(scope="module")
def people(compose: Compose, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """A web server beside the platform, and a pipeline file that reads it with the connector for any HTTP API."""
    folder = tmp_path_factory.mktemp("api")
    folder.chmod(0o755)
    (folder / "people.json").write_text(json.dumps(PEOPLE))
    name = f"{PROJECT}-test-people-{os.getpid()}"
    server = ["python3", "-m", "http.server", "8000", "--directory", "/api"]
    where = ["--network", f"{PROJECT}_sources", "--network-alias", "people-api", "-v", f"{folder}:/api:ro"]
    image = ["--entrypoint", server[0], f"shudl/airflow:{VERSION}"]
    assert compose.run("docker", "run", "-d", "--rm", "--name", name, *where, *image, *server[1:]).returncode == 0
    pipeline = {
        "kind": "airbyte",
        "source": "test_people",
        "connector": "airbyte-cdk",
        "version": "7.9.3",
        "config": {"__injected_declarative_manifest": MANIFEST},
        "streams": {"people": {"write": "dedup"}},
    }
    PIPELINE.write_text(json.dumps(pipeline))
    try:
        yield compose
    finally:
        PIPELINE.unlink()
        compose.run("docker", "rm", "--force", name)


def test_an_airbyte_connector_is_installed_and_read(people: Compose) -> None:
    said = people.cli("run", "ingest_test_people", "--timeout", "900", timeout_s=960)
    found = people.cli("sql", "trino", "SELECT count(*), min(name), max(born) FROM raw.people")
    assert re.search(r"^ *60 +person 0 +1959-01-01", found, re.M), f"{found}\n{said[-2000:]}"


def test_a_run_without_anything_new_changes_nothing(people: Compose) -> None:
    people.cli("run", "ingest_test_people", "--timeout", "900", timeout_s=960)
    assert re.search(r"^ *60$", people.cli("sql", "trino", "SELECT count(*) FROM raw.people"), re.M)


def test_a_file_is_landed_and_published(compose: Compose, tmp_path: Path) -> None:
    """From the host's folder into the bucket; the bucket's watcher, and then the table's asset, do the rest."""
    tmp_path.chmod(0o755)
    (tmp_path / "aircraft.csv").write_text("tailnum,year,manufacturer,model,engine\nN10156,2004,EMBRAER,EMB-145XR,Turbo-fan\n")
    docker = {**compose.environment, "SHUDL_RUNTIME": "docker"}
    subprocess.run([ROOT / "shudl", "land", "aircraft", "aircraft.csv"], cwd=tmp_path, env=docker, check=True, timeout=120)
    of_it = "SELECT count(*) AS flown FROM intermediate.int_flights WHERE tailnum = 'N10156'"
    flown = re.findall(r"\d+", compose.cli("sql", "trino", of_it))
    served = "SELECT sum(flights) AS flown FROM serving.otp_by_aircraft WHERE manufacturer = 'EMBRAER'"
    deadline = time.monotonic() + SERVED_S
    while True:
        done = compose.run(str(PLATFORM), "compose", "run", "--rm", "-T", "cli", "sql", "clickhouse", served)
        if done.returncode == 0 and re.findall(r"\d+", done.stdout)[:1] == flown[:1]:
            return
        assert time.monotonic() < deadline, f"{flown}: {done.stdout[-2000:]}"
        time.sleep(5)
