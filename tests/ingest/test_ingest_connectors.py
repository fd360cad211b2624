"""Connectors into Kafka: installed once, checked before they run, each record and its cursor together or not at all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from fastavro import schemaless_reader

from include.cdc.pipelines import PipelineError
from include.ingest import airbyte
from include.ingest.airbyte import extract, load_state
from include.ingest.connectors import install
from include.ingest.deadletters import IngestError
from include.ingest.registry import Registry
from include.platform.endpoints import Endpoint, Endpoints
from include.platform.kafka import client_config
from tests.ingest.conftest import DECLARATIVE, FAKER, Api, pipeline


def committed(topic: str, endpoints: Endpoints) -> list[Any]:
    """Every record of the topic that a reader of committed transactions sees."""
    from confluent_kafka import Consumer, TopicPartition

    settings = {"group.id": "test", "isolation.level": "read_committed", "enable.partition.eof": True}
    consumer = Consumer(client_config(endpoints["shudl_kafka"], settings))
    consumer.assign([TopicPartition(topic, 0, 0)])
    found = []
    while True:
        message = consumer.poll(20)
        assert message is not None
        if message.error():
            consumer.close()
            return found
        found.append(message)


def test_one_installs_and_the_other_waits(engines: Endpoints) -> None:
    said: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: install(pipeline("a", {"users": {}}, **FAKER), said.append), range(2)))
    assert found[0].program == found[1].program and found[0].program.exists()
    assert len([line for line in said if "installed in" in line]) <= 1, said


def test_a_connector_that_does_not_exist() -> None:
    with pytest.raises(PipelineError, match=r"airbyte-source-nosuch-thing==1.0 cannot be installed: .*see that the package"):
        install(pipeline("a", {"users": {}}, connector="airbyte-source-nosuch-thing", version="1.0"), print)


def test_a_configuration_that_its_specification_refuses(engines: Endpoints) -> None:
    config = {"count": "many", "parallelism": "x"}
    with pytest.raises(PipelineError) as raised:
        extract(pipeline("a", {"users": {}}, config=config, **FAKER), engines, "r")
    assert len(raised.value.problems) == 2
    assert "config.count: 'many' is not of type 'integer'" in raised.value.problems[0]


def test_a_stream_that_the_source_has_not(engines: Endpoints) -> None:
    with pytest.raises(PipelineError, match=r"streams.user: the source has no such stream; did you mean users"):
        extract(pipeline("a", {"user": {}}, config={"count": 1}, **FAKER), engines, "r")


def test_a_source_that_breaks_off(engines: Endpoints, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its second run goes on at the last cursor: no order is lost. Those that the cursor does not cover come again: this
    connector reads days side by side. The token is nowhere in what it says."""
    monkeypatch.setattr(airbyte, "COMMIT_S", 0.0)  # a transaction at each cursor
    api.orders = [{"id": n, "day": f"2024-01-0{n // 25 + 1}", "Total é": n / 4} for n in range(100)]
    config = {"token": "${password}", "__injected_declarative_manifest": api.manifest()}
    shop = pipeline("orders", {"Orders é": {}}, connection="shop_api", config=config, **DECLARATIVE)
    endpoints = {**engines, "shop_api": Endpoint("shop_api", "http", "", 0, password="hunter22")}

    refused = {**endpoints, "shop_api": replace(endpoints["shop_api"], password="wrong-token")}
    with pytest.raises(IngestError) as raised:
        extract(shop, refused, "r0")
    assert "wrong-token" not in str(raised.value) and "cannot use its source" in str(raised.value)

    api.broken = "2024-01-03"
    with pytest.raises(IngestError, match="read ended with code"):
        extract(shop, endpoints, "r1")
    topic = shop.topic("Orders é")
    assert topic == "airbyte.raw.orders__"
    assert len(committed(topic, engines)) < 100, "what had no cursor yet is not there"
    api.broken = ""
    told = extract(shop, endpoints, "r2")
    assert told["streams"]["Orders é"]["records"] < 100, "what the cursor covers does not come again"
    schema = next(iter(Registry(engines).versions(f"{topic}-value").values()))
    rows = [schemaless_reader(BytesIO(message.value()[5:]), schema, None) for message in committed(topic, engines)]
    assert {row["id"] for row in rows} == set(range(100))
    assert "Orders é" in load_state("orders", engines)


def test_a_record_too_large_for_kafka(engines: Endpoints) -> None:
    """It fails the run by name and size; nothing of the run is left, and its way out works."""
    small = pipeline("large", {"users": {"table": "large_users"}}, config={"count": 50}, max_record_bytes=1000, **FAKER)
    encode = airbyte.Encoder.encode
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(airbyte.Encoder, "encode", lambda self, data, at: encode(self, {**data, "name": "x" * 2000}, at))
        with pytest.raises(IngestError, match="takes 1000; raise max_record_bytes in the pipeline file"):
            extract(small, engines, "r1")
        assert committed("airbyte.raw.large_users", engines) == [] and load_state("large", engines) == {}
        extract(small.model_copy(update={"max_record_bytes": 10_000}), engines, "r2")
    assert len(committed("airbyte.raw.large_users", engines)) == 50
