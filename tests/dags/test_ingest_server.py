"""``server:`` in a pipeline file: the DAG drives the sync by Airflow's provider.

The peer is a small HTTP server that speaks the part of Airbyte's public API which a sync needs; no Airbyte server runs here.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.exceptions import AirflowException

from include.ingest.sources import AirbytePipeline
from include.platform.settings import ROOT
from tests.http_json import Answers, serve

CONNECTION = "0f5e7a44-1b7e-4a7c-9f7e-6d9f1c2b3a4d"
PIPELINE = {
    "kind": "airbyte",
    "source": "far",
    "server": "far_airbyte",
    "server_connection": CONNECTION,
    "streams": {"users": {}},
}


class Server:
    """Accepts the sync ``CONNECTION``; it runs for one question, and then is as ``becomes`` says."""

    def __init__(self) -> None:
        self.becomes, self.asked, self.token = "succeeded", [], ""
        server = self

        class Handler(Answers):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path.endswith("/applications/token"):
                    return self.answer({"access_token": "t", "token_type": "Bearer", "expires_in": 100})
                server.token = self.headers.get("Authorization", "")
                server.asked.append((self.path, json.loads(body)))
                self.answer(self._job("running"))

            def do_GET(self) -> None:
                server.asked.append((self.path, None))
                self.answer(self._job(server.becomes))

            def _job(self, status: str) -> dict[str, Any]:
                about = {"jobId": 7, "jobType": "sync", "startTime": "2026-01-01T00:00:00Z", "connectionId": CONNECTION}
                return {**about, "status": status}

        self.http = serve(Handler)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()
    connection = {"conn_type": "airbyte", "host": f"http://127.0.0.1:{server.http.server_port}"}
    connection |= {"login": "client", "password": "hunter22", "schema": "v1/applications/token"}
    monkeypatch.setenv("AIRFLOW_CONN_FAR_AIRBYTE", json.dumps(connection))
    yield server
    server.http.shutdown()


def sync() -> Any:
    spec = importlib.util.spec_from_file_location("ingest_dags", ROOT / "dags" / "ingest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    task = module.ingest_dag(AirbytePipeline.model_validate(PIPELINE)).get_task("sync")
    task.wait_seconds = 0.1
    return task


def test_the_sync_runs_there(server: Server) -> None:
    task = sync()
    assert [asset.uri for asset in task.outlets] == ["shudl://lake/raw.users"]
    task.execute({})
    assert server.asked[0] == ("/jobs", {"connectionId": CONNECTION, "jobType": "sync"}) and server.token == "Bearer t"
    assert server.asked[1][0] == "/jobs/7"


def test_a_sync_that_fails_there_fails_here(server: Server) -> None:
    server.becomes = "failed"
    with pytest.raises(AirflowException, match="7"):
        sync().execute({})
