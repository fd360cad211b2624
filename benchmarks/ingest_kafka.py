"""Kafka → Iceberg, rows a second and CPU-seconds a million rows, by Spark and by a consumer that writes with PyIceberg.

One topic of Avro records with eight columns. Both read all of it from the beginning into a new table and are counted from
their start: Spark's own start is part of it. PyIceberg's consumer is what a user would write: decode, make a table of
100,000 rows, append; it keeps no position, no dead letters, and follows no schema.
"""

from __future__ import annotations

import io
import resource
import threading
import time
import uuid
from typing import Any

import psutil

from benchmarks.machine import show, spread
from include.cdc.topics import ensure_topics
from include.ingest.airbyte_schema import Columns, Encoder
from include.ingest.registry import Registry
from include.ingest.sources import AirbytePipeline
from include.ingest.stream import load
from include.lake.catalog import Lake
from include.platform.endpoints import Endpoints, local_endpoints
from include.platform.kafka import admin_client, client_config

ROWS, RUNS, CHUNK = 1_000_000, 2, 100_000
PROPERTIES = {
    **{name: {"type": "integer"} for name in ("id", "user_id", "product_id")},
    **{name: {"type": "string"} for name in ("name", "note")},
    **{name: {"type": "string", "format": "date-time"} for name in ("created_at", "updated_at")},
    "price": {"type": "number"},
}
SPARK = ("CoarseGrainedExecutorBackend", "org.apache.spark.deploy.SparkSubmit", "stream_job.py", "pyspark.daemon")


class Cpu:
    """CPU-seconds of this process and of what Spark starts, within the block."""

    def __enter__(self) -> Cpu:
        self._seen: dict[int, float] = {}
        self._own, self._over = _own(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.seconds = _own() - self._own + sum(self._seen.values())

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            for process in psutil.process_iter(["pid", "cmdline", "cpu_times"]):
                if any(word in " ".join(process.info["cmdline"] or []) for word in SPARK):
                    self._seen[process.info["pid"]] = sum(process.info["cpu_times"][:2])


def _own() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure() -> dict[str, Any]:
    """By way: ``{seconds, rows_per_s, cpu_s_per_million}``, and the ratio of the medians."""
    endpoints = local_endpoints()
    source = f"benchmark_{uuid.uuid4().hex[:8]}"
    columns = _fill(source, endpoints)
    catalog = Lake.from_endpoints(endpoints).pyiceberg()
    took: dict[str, list[tuple[float, float]]] = {"Spark": [], "PyIceberg": []}
    for run in range(RUNS):
        for way, deed in (("Spark", _spark), ("PyIceberg", _pyiceberg)):
            began = time.monotonic()
            with Cpu() as cpu:
                table = deed(source, run, endpoints, columns)
            took[way].append((time.monotonic() - began, cpu.seconds))
            found = catalog.load_table(table).scan().count()
            if found != ROWS:
                raise RuntimeError(f"{table} has {found} rows and not {ROWS}")
            catalog.drop_table(table)
    figures: dict[str, Any] = {"rows": ROWS}
    for way, runs in took.items():
        seconds = spread([run[0] for run in runs])
        cpu = spread([run[1] / ROWS * 1e6 for run in runs])["median"]
        figures[way] = {"seconds": seconds, "rows_per_s": round(ROWS / seconds["median"]), "cpu_s_per_million": cpu}
    figures["ratio"] = round(figures["Spark"]["seconds"]["median"] / figures["PyIceberg"]["seconds"]["median"], 2)
    rows = [(w, figures[w]["seconds"]["median"], figures[w]["rows_per_s"], figures[w]["cpu_s_per_million"]) for w in took]
    show(f"Kafka to Iceberg, {ROWS:,} rows", rows, ("by", "median, s", "rows/s", "CPU-s / million"))
    show("Ratio of the medians", [(figures["ratio"],)], ("Spark / PyIceberg",))
    return figures


def _fill(source: str, endpoints: Endpoints) -> Columns:
    from confluent_kafka import Producer

    columns = Columns.of(source, {"properties": PROPERTIES})
    topic = f"airbyte.raw.{source}"
    ensure_topics(admin_client(endpoints["shudl_kafka"]), [topic], {})
    encoder = Encoder(columns, Registry(endpoints).register(f"{topic}-value", columns.avro))
    producer = Producer(client_config(endpoints["shudl_kafka"], {"linger.ms": 50, "compression.type": "zstd"}))
    for n in range(ROWS):
        row = {"id": n, "user_id": n % 1000, "product_id": n % 97, "name": f"name {n}", "note": "x" * (n % 40), "price": n / 7}
        row |= {"created_at": "2024-02-29T23:59:59+00:00", "updated_at": "2024-03-01T00:00:00.123+00:00"}
        while True:
            try:
                producer.produce(topic, encoder.encode(row, 1_700_000_000_000))
                break
            except BufferError:
                producer.poll(0.2)
        producer.poll(0)
    if producer.flush(120):
        raise RuntimeError("Kafka did not take the records")
    return columns


def _spark(source: str, run: int, endpoints: Endpoints, columns: Columns) -> str:
    pipeline = AirbytePipeline.model_validate(
        {"kind": "airbyte", "source": f"{source}_{run}", "connector": "c", "version": "1", "streams": {source: {}}}
    )
    load(pipeline, endpoints, "benchmark")
    return f"raw.{source}"


def _pyiceberg(source: str, run: int, endpoints: Endpoints, columns: Columns) -> str:
    import fastavro
    import pyarrow as pa
    from confluent_kafka import Consumer, TopicPartition

    catalog = Lake.from_endpoints(endpoints).pyiceberg()
    name = f"raw.{source}_{run}_pyiceberg"
    schema = fastavro.parse_schema(columns.avro)
    settings = {"group.id": "benchmark", "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    consumer = Consumer(client_config(endpoints["shudl_kafka"], settings))
    consumer.assign([TopicPartition(f"airbyte.raw.{source}", 0, 0)])
    table, left = None, ROWS
    while left:
        rows: list[Any] = []
        while len(rows) < min(CHUNK, left):
            messages = consumer.consume(min(10_000, left - len(rows)), 10)
            rows += [fastavro.schemaless_reader(io.BytesIO(message.value()[5:]), schema, None) for message in messages]
        made = pa.Table.from_pylist(rows)
        never = {column.name: pa.string() for column in made.schema if pa.types.is_null(column.type)}
        made = made.cast(pa.schema([(column.name, never.get(column.name, column.type)) for column in made.schema]))
        table = table or catalog.create_table(name, made.schema)
        table.append(made)
        left -= len(rows)
    consumer.close()
    return name
