"""Kafka into Iceberg: each record once, whatever is killed; what does not decode is a dead letter; tables follow the stream."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from typing import Any

import fastavro
import psutil
import pytest

from include.cdc.topics import ensure_topics
from include.ingest import deadletters
from include.ingest.airbyte import REASON
from include.ingest.airbyte_schema import Columns, Encoder
from include.ingest.deadletters import IngestError, Refused
from include.ingest.registry import Registry
from include.ingest.stream import load
from include.lake.catalog import Lake
from include.lake.s3 import s3_client
from include.platform.endpoints import Endpoints
from include.platform.kafka import admin_client, client_config
from tests.ingest.conftest import Tables, pipeline

IDS = {"id": {"type": "integer"}, "n": {"type": "integer"}}


class Topic:
    """Writes records as the first hop does."""

    def __init__(self, table: str, endpoints: Endpoints, key: tuple[str, ...] = ()) -> None:
        from confluent_kafka import Producer

        self.table, self.topic, self.endpoints, self.key = table, f"airbyte.raw.{table}", endpoints, key
        ensure_topics(admin_client(endpoints["shudl_kafka"]), [self.topic], {})
        settings = {"linger.ms": 20, "queue.buffering.max.messages": 1_000_000}
        self.producer = Producer(client_config(endpoints["shudl_kafka"], settings))
        self.failed: list[Any] = []

    def write(self, rows: list[dict[str, Any]], properties: dict[str, Any] = IDS) -> None:
        columns = Columns.of(self.table, {"properties": properties}, key=self.key)
        encoder = Encoder(columns, Registry(self.endpoints).register(f"{self.topic}-value", columns.avro))
        for row in rows:
            self.raw(encoder.encode(row, 1_700_000_000_000))

    def raw(self, value: bytes | None, reason: str = "") -> None:
        headers = [(REASON, reason.encode())] if reason else None
        self.producer.produce(self.topic, value, headers=headers, on_delivery=self._delivered)
        self.producer.poll(0)

    def flush(self) -> None:
        assert self.producer.flush(60) == 0 and not self.failed, self.failed

    def _delivered(self, error: Any, _: Any) -> None:
        if error:
            self.failed.append(error)


def source(name: str, rows: int = 0, **streams: dict[str, Any]) -> Any:
    return pipeline(name, streams or {name: {}}, connector="c", version="1", dead_letters={"rows": rows})


def test_drivers_killed_about_commits(engines: Endpoints, tables: Tables) -> None:
    """Killed with SIGKILL after the dead letters and after the commit, appending and merging: no row is lost or comes twice."""
    written, merged = Topic("kill_append", engines), Topic("kill_dedup", engines, ("id",))
    shop = source("kill", rows=5, kill_append={"write": "append"}, kill_dedup={"write": "dedup"})
    rounds = [f"raw.kill_{write}:{moment}" for write in ("append", "dedup") for moment in ("before", "after")]
    rows = []
    for number, fault in enumerate([*rounds, ""]):
        fresh = [{"id": n % 400, "n": number * 1000 + n} for n in range(1000)]
        rows += fresh
        for topic in (written, merged):
            topic.write(fresh)
            topic.raw(f"no record {number}".encode())
            topic.flush()
        if fault:
            with pytest.raises(IngestError, match="ended with code"):
                load(shop, engines, f"r{number}", fault=fault)
    load(shop, engines, "last")
    assert all(told["read"] == 0 for told in load(shop, engines, "again").values())
    found = {name: sorted((row["id"], row["n"]) for row in tables.rows(f"raw.{name}", "id", "n")) for name in shop.streams}
    assert found["kill_append"] == sorted((row["id"], row["n"]) for row in rows)
    assert found["kill_dedup"] == sorted({row["id"]: row["n"] for row in rows}.items())
    for name in shop.streams:
        letters = list(deadletters.open_of(Lake.from_endpoints(engines), f"raw.{name}"))
        assert sorted(letter.raw for letter in letters) == [f"no record {number}".encode() for number in range(5)]


def test_an_executor_killed_while_it_writes(engines: Endpoints, tables: Tables) -> None:
    topic = Topic("kill_executor", engines)
    topic.write([{"id": i, "n": i} for i in range(400_000)])
    topic.flush()
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 300
        while not killed and time.monotonic() < deadline:
            for process in psutil.process_iter(["cmdline"]):
                line = " ".join(process.info["cmdline"] or [])
                if "CoarseGrainedExecutorBackend" in line and engines["shudl_spark"].host in line:
                    time.sleep(5)
                    os.kill(process.pid, signal.SIGKILL)
                    killed.append(process.pid)
                    break
            time.sleep(0.2)

    killer = threading.Thread(target=kill)
    killer.start()
    told = load(source("kill_executor"), engines, "r1")["raw.kill_executor"]
    killer.join()
    assert killed and told["read"] == told["written"] == 400_000
    ids = [row["id"] for row in tables.rows("raw.kill_executor", "id")]
    assert len(ids) == len(set(ids)) == 400_000 and sum(ids) == 400_000 * 399_999 // 2


def test_a_checkpoint_that_is_lost(engines: Endpoints, tables: Tables) -> None:
    """The table itself says where it ends."""
    topic = Topic("lost", engines)
    topic.write([{"id": i, "n": i} for i in range(100)])
    topic.flush()
    load(source("lost"), engines, "r1")
    s3 = s3_client(engines["shudl_s3"])
    held = s3.list_objects_v2(Bucket="lake", Prefix="checkpoints/ingest/lost/").get("Contents", [])
    assert held, "the checkpoint is in the lake's bucket"
    for item in held:
        s3.delete_object(Bucket="lake", Key=item["Key"])
    topic.write([{"id": i, "n": i} for i in range(100, 150)])
    topic.flush()
    assert load(source("lost"), engines, "r2")["raw.lost"]["read"] == 50
    assert sorted(row["id"] for row in tables.rows("raw.lost", "id")) == list(range(150))


def test_dead_letters_and_their_replay(engines: Endpoints, tables: Tables) -> None:
    """Each kind of record that is none has its reason; too many fail the run, which wrote the rest; what fits now is a row."""
    topic = Topic("dead", engines)
    topic.write([{"id": i, "n": 1} for i in range(10)])
    topic.raw(None)
    topic.raw(b"garbage")
    topic.raw(b"\0\x7f\xff\xff\xff\x02")
    known = next(iter(Registry(engines).versions(f"{topic.topic}-value")))
    topic.raw(b"\0" + known.to_bytes(4, "big") + b"\x02" + b"\xff" * 12)
    topic.raw(b'{"id":"x","n":5}', 'field id: "x" is no integer')
    topic.raw(b'{"id":77,"n":5}', "field n: a mistake that was mended since")
    topic.flush()
    with pytest.raises(Refused, match=r"raw.dead: 6 of 16 rows are dead letters, at most 5 are allowed"):
        load(source("dead", rows=5), engines, "r1")
    assert len(tables.rows("raw.dead", "id")) == 10
    lake = Lake.from_endpoints(engines)
    reasons = {letter.position: letter.reason for letter in deadletters.open_of(lake, "raw.dead")}
    assert list(reasons) and reasons[10] == "the record has no value"
    assert reasons[11] == "the value does not begin as the schema registry's format does"
    assert "is none of airbyte.raw.dead-value" in reasons[12] and reasons[13] == f"the value cannot be read with schema {known}"
    assert reasons[14] == 'field id: "x" is no integer'

    for run in ("p1", "p2"):
        deadletters.replay(engines, "raw.dead", run)
        assert sorted(row["id"] for row in tables.rows("raw.dead", "id")) == [*range(10), 77]
    assert sorted(letter.position for letter in deadletters.open_of(lake, "raw.dead")) == [10, 11, 12, 13, 14]


def test_a_table_follows_its_stream(engines: Endpoints, tables: Tables) -> None:
    """Records of three versions in one batch; a column more, one that is wider; a type that cannot follow is refused."""
    registry, topic = Registry(engines), Topic("evolve", engines)

    def version(kind: Any, *more: str) -> tuple[int, dict[str, Any]]:
        head = {"type": "record", "name": "evolve", "namespace": "airbyte.raw"}
        fields = [{"name": "id", "type": ["null", kind], "default": None}]
        fields += [{"name": name, "type": ["null", "string"], "default": None} for name in more]
        fields.append({"name": "_emitted_at", "type": {"type": "long", "logicalType": "timestamp-millis"}})
        schema = {**head, "fields": fields}
        return registry.register(f"{topic.topic}-value", schema), schema

    def write(kind: Any, row: dict[str, Any], *more: str) -> None:
        schema_id, schema = version(kind, *more)
        out = io.BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(schema), {"_emitted_at": 0, **row})
        topic.raw(b"\0" + schema_id.to_bytes(4, "big") + out.getvalue())
        topic.flush()

    write("int", {"id": 1})
    load(source("evolve"), engines, "r1")
    assert tables.types("raw.evolve")["id"] == "int"
    write("int", {"id": 2})
    write("long", {"id": 2**40})
    write("long", {"id": 4, "x": "ü"}, "x")
    told = load(source("evolve"), engines, "r2")["raw.evolve"]
    assert sorted(told["changes"]) == ["added raw.evolve.x string", "widened raw.evolve.id to bigint"]
    found = sorted((row["id"], row["x"]) for row in tables.rows("raw.evolve", "id", "x"))
    assert found == [(1, None), (2, None), (4, "ü"), (2**40, None)]
    write("string", {"id": "five"}, "x")
    with pytest.raises(IngestError, match="field id was long and is now string; give the stream another table"):
        load(source("evolve"), engines, "r3")
