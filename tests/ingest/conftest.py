"""Ingest on the engines alone that it needs: S3, Nessie, Kafka, registry, Spark. Needs a quarter of an hour: on demand.

``make test-ingest`` sets ``SHUDL_INGEST_TESTS``; without it these tests are skipped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest

from include.ingest.sources import AirbytePipeline
from include.lake.catalog import Lake
from include.platform.checks import NotHealthy, healthy
from include.platform.endpoints import Endpoints, local_endpoints
from include.platform.supervisor import Supervisor
from tests.declarative import manifest
from tests.http_json import Answers, serve

HERE = Path(__file__).parent
SERVICES = ("s3", "nessie", "kafka", "registry", "spark-master", "spark-worker")
FAKER = {"connector": "airbyte-source-faker", "version": "7.2.1"}
DECLARATIVE = {"connector": "airbyte-cdk", "version": "6.61.6"}
"""Its program runs the manifest that it is given: any HTTP API."""


def pytest_collection_modifyitems(items: list[Any]) -> None:
    if not os.environ.get("SHUDL_INGEST_TESTS"):
        for item in items:
            if item.path.is_relative_to(HERE):
                item.add_marker(pytest.mark.skip(reason="SHUDL_INGEST_TESTS is not set: make test-ingest"))


@pytest.fixture(scope="session")
def engines() -> Iterator[Endpoints]:
    """The services, healthy."""
    supervisor, endpoints = Supervisor(), local_endpoints()
    supervisor.launch()
    for name in SERVICES:
        supervisor.start(name)
    deadline = time.monotonic() + 400
    for name in SERVICES:
        while True:
            try:
                healthy(name, endpoints)
                break
            except NotHealthy as error:
                assert time.monotonic() < deadline, f"{name}: {error}"
                time.sleep(0.5)
    yield endpoints
    if not os.environ.get("SHUDL_TEST_KEEP"):
        supervisor.shutdown()


class Tables:
    """The lake's tables, read by PyIceberg."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.catalog = Lake.from_endpoints(endpoints).pyiceberg()

    def rows(self, table: str, *columns: str) -> list[dict[str, Any]]:
        return self.catalog.load_table(table).scan(selected_fields=columns).to_arrow().to_pylist()

    def types(self, table: str) -> dict[str, str]:
        return {field.name: str(field.field_type) for field in self.catalog.load_table(table).schema().fields}


@pytest.fixture(scope="session")
def tables(engines: Endpoints) -> Tables:
    return Tables(engines)


def pipeline(source: str, streams: dict[str, Any], **more: Any) -> AirbytePipeline:
    return AirbytePipeline.model_validate({"kind": "airbyte", "source": source, "streams": streams, **more})


class Api:
    """An HTTP API of orders by day, ten a page. ``broken`` names a day whose second page fails."""

    def __init__(self) -> None:
        self.orders: list[dict[str, Any]] = []
        self.broken = ""
        api = self

        class Handler(Answers):
            def do_GET(self) -> None:
                asked = {name: values[0] for name, values in parse_qs(urlparse(self.path).query).items()}
                if self.headers.get("Authorization") != "Bearer hunter22":
                    return self.answer({"message": "no such token"}, 401)
                day, page = asked.get("day", ""), int(asked.get("page", 0))
                if day == api.broken and page:
                    return self.answer({"message": "the source breaks off"}, 400)
                found = [order for order in api.orders if order["day"] == day]
                self.answer({"orders": found[page * 10 : page * 10 + 10]})

        self._server = serve(Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()

    def manifest(self) -> dict[str, Any]:
        """What the declarative connector is told: pages within days, days as cursor."""

        def option(name: str) -> dict[str, str]:
            return {"type": "RequestOption", "inject_into": "request_parameter", "field_name": name}

        return manifest(
            "Orders é",
            requester={
                "url_base": self.url,
                "path": "/orders",
                "http_method": "GET",
                "authenticator": {"type": "BearerAuthenticator", "api_token": "{{ config['token'] }}"},
                "error_handler": {
                    "type": "DefaultErrorHandler",
                    "response_filters": [{"type": "HttpResponseFilter", "action": "FAIL", "http_codes": [400]}],
                },
            },
            field_path=["orders"],
            properties={
                "id": {"type": "integer"},
                "day": {"type": "string", "format": "date"},
                "Total é": {"type": ["null", "number"]},
            },
            config={"token": {"type": "string"}},
            paginator={
                "type": "DefaultPaginator",
                "page_token_option": option("page"),
                "pagination_strategy": {"type": "PageIncrement", "page_size": 10},
            },
            incremental_sync={
                "type": "DatetimeBasedCursor",
                "cursor_field": "day",
                "datetime_format": "%Y-%m-%d",
                "start_datetime": "2024-01-01",
                "end_datetime": "2024-01-05",
                "step": "P1D",
                "cursor_granularity": "P1D",
                "start_time_option": option("day"),
            },
        )


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    yield api
    api.close()
