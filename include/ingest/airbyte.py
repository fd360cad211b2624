"""From a connector into Kafka: each record once, and the cursor with them.

Records and the source's cursor (Airbyte's state) are written in Kafka transactions: the cursor is in the compacted topic
``airbyte.state``, under the source's name, and becomes visible together with the records before it, or not at all. A run that
breaks off leaves what its last transaction had. A second run of the source ends the first one's (its producer is fenced).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from include.cdc.pipelines import PipelineError, close_to
from include.ingest.airbyte_schema import Columns, Encoder, Misfit
from include.ingest.connectors import Say, configuration, install
from include.ingest.deadletters import IngestError
from include.ingest.registry import Registry
from include.ingest.sources import AirbytePipeline
from include.ingest.stream_schema import Incompatible, merged
from include.platform.endpoints import Endpoints
from include.platform.kafka import admin_client, client_config

if TYPE_CHECKING:
    from confluent_kafka import Producer

STATE_TOPIC = "airbyte.state"
RETENTION_MS = 7 * 86_400_000
REASON, EMITTED_AT = "shudl.reason", "shudl.emitted_at"
"""Headers of a record that does not fit its schema, and is in the topic as JSON: why, and when the source gave it."""
COMMIT_RECORDS, COMMIT_S = 100_000, 5.0
"""At a cursor, the transaction is committed once it has so many records, or is so old."""
LONGEST_TRANSACTION_S, TRANSACTION_TIMEOUT_MS = 600, 900_000
KAFKA_S = 60
OVERHEAD = 100_000
"""Bytes that Kafka may need around a record."""


@dataclass(frozen=True)
class Plan:
    """How one stream is read."""

    name: str
    topic: str
    configured: dict[str, Any]
    columns: Columns
    key: tuple[str, ...]

    @property
    def incremental(self) -> bool:
        return self.configured["sync_mode"] == "incremental"


def extract(pipeline: AirbytePipeline, endpoints: Endpoints, run: str, say: Say = print) -> dict[str, Any]:
    """Read what is new into Kafka; by stream the number of records, and of those among them that do not fit their schema.

    Raises :class:`PipelineError` for what is wrong with the file, the connection or the source's streams, before anything is
    read; :class:`IngestError` when the source or Kafka fails.
    """
    config, secrets = configuration(pipeline, endpoints[pipeline.connection] if pipeline.connection else None)
    connector = install(pipeline, say, secrets)
    connector.validate(config)
    connector.check(config)
    plans = plan(pipeline, connector.discover(config))
    ids = _prepare(pipeline, plans, endpoints)
    catalog = {"streams": [each.configured for each in plans.values()]}
    with Sink(pipeline, plans, ids, endpoints, run) as sink:
        with connector.read(config, catalog, sink.cursor(), say) as messages:
            for message in messages:
                if message["type"] == "RECORD":
                    sink.record(message["record"])
                elif message["type"] == "STATE":
                    sink.state(message["state"])
        sink.commit()
        return {"streams": sink.counts, "commits": sink.commits}


def plan(pipeline: AirbytePipeline, discovered: Mapping[str, Mapping[str, Any]]) -> dict[str, Plan]:
    """Raises :class:`PipelineError` with every stream, mode and key that the source does not have."""
    problems: list[str] = []
    plans = {}
    for name, wanted in pipeline.streams.items():
        here = pipeline.at("streams", name)
        stream = discovered.get(name)
        if stream is None:
            has = ", ".join(discovered)
            problems.append(f"{here}: the source has no such stream; {close_to(name, discovered) or f'it has {has}'}")
            continue
        columns = Columns.of(pipeline.table(name), stream["json_schema"], wanted.text)
        fields = {field for field, _, _ in columns.fields}
        supported = stream.get("supported_sync_modes") or ["full_refresh"]
        sync = wanted.sync or ("incremental" if "incremental" in supported else "full_refresh")
        if sync not in supported:
            problems.append(f"{here}: the source cannot read it as {sync}; set sync: {' or '.join(supported)}")
        key = wanted.key or tuple(path[0] if len(path) == 1 else "" for path in stream.get("source_defined_primary_key") or ())
        if wanted.write == "dedup" and (not key or "" in key):
            problems.append(f"{here}: the source defines no key of plain fields; add key: [field], or set write: append")
        cursor = [wanted.cursor] if wanted.cursor else stream.get("default_cursor_field") or []
        for word, named in (("key", wanted.key), ("text", wanted.text), ("cursor", tuple(filter(None, (wanted.cursor,))))):
            for field in named:
                if field not in fields:
                    at = pipeline.at("streams", name, word)
                    way_out = close_to(field, fields) or f"it has {', '.join(sorted(fields))}"
                    problems.append(f"{at}: the stream has no field {field}; {way_out}")
        configured = {
            "stream": stream,
            "sync_mode": sync,
            "destination_sync_mode": "append_dedup" if wanted.write == "dedup" else "append",
            "primary_key": [[field] for field in key],
            "cursor_field": cursor,
        }
        key = key if wanted.write == "dedup" and key and "" not in key else ()
        if set(key) <= fields:
            columns = Columns.of(pipeline.table(name), stream["json_schema"], wanted.text, key)
        plans[name] = Plan(name, pipeline.topic(name), configured, columns, key)
    if problems:
        raise PipelineError(problems)
    return plans


def _prepare(pipeline: AirbytePipeline, plans: Mapping[str, Plan], endpoints: Endpoints) -> dict[str, int]:
    """Topics and subjects; by stream the id of its schema. Raises :class:`PipelineError` for a type that cannot follow."""
    from include.cdc.topics import ensure_topics

    registry = Registry(endpoints)
    problems = []
    for each in plans.values():
        try:
            merged([*registry.versions(f"{each.topic}-value").values(), each.columns.avro])
        except Incompatible as error:
            way_out = "name the field in text, which gives it a column of its own, or give the stream another table"
            table = pipeline.lake_table(each.name)
            problems.append(f"{pipeline.at('streams', each.name)}: {error}, which {table} cannot become; {way_out}")
    if problems:
        raise PipelineError(problems)
    admin = admin_client(endpoints["shudl_kafka"])
    largest = str(pipeline.max_record_bytes + OVERHEAD)
    config = {"cleanup.policy": "delete", "retention.ms": str(RETENTION_MS), "max.message.bytes": largest}
    ensure_topics(admin, [each.topic for each in plans.values()], config)
    ensure_topics(admin, [STATE_TOPIC], {"cleanup.policy": "compact", "max.message.bytes": largest})
    return {each.name: registry.register(f"{each.topic}-value", each.columns.avro) for each in plans.values()}


class Sink:
    """One run's producer. What is not committed when its block ends never happened."""

    def __init__(
        self,
        pipeline: AirbytePipeline,
        plans: Mapping[str, Plan],
        ids: Mapping[str, int],
        endpoints: Endpoints,
        run: str,
    ) -> None:
        self.counts = {name: {"records": 0, "misfits": 0} for name in plans}
        self.commits = 0
        self._pipeline, self._plans, self._run = pipeline, plans, run
        self._states: dict[str, Any] = {}
        self._encoders = {name: Encoder(each.columns, ids[name]) for name, each in plans.items()}
        self._endpoints = endpoints
        self._open, self._began, self._records, self._changed = False, 0.0, 0, False

    def __enter__(self) -> Sink:
        from confluent_kafka import Producer

        settings = {
            "transactional.id": self._pipeline.job,
            "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
            "acks": "all",
            "compression.type": "zstd",
            "linger.ms": 50,
            "message.max.bytes": self._pipeline.max_record_bytes + OVERHEAD,
            "queue.buffering.max.kbytes": 131_072,
        }
        self._producer: Producer = Producer(client_config(self._endpoints["shudl_kafka"], settings))
        self._kafka(self._producer.init_transactions, KAFKA_S)  # ends what an earlier run had not committed
        self._states = load_state(self._pipeline.source, self._endpoints)
        return self

    def __exit__(self, *_: object) -> None:
        from confluent_kafka import KafkaException

        if self._open:
            self._producer.purge()
            try:
                self._producer.abort_transaction(KAFKA_S)
            except KafkaException:
                pass  # the next run of the source, or Kafka after a while, aborts it

    def cursor(self) -> list[Any]:
        """What the connector is told of earlier runs."""
        wanted = {name for name, each in self._plans.items() if each.incremental} | {""}
        return [state for name, state in self._states.items() if name in wanted]

    def record(self, record: Mapping[str, Any]) -> None:
        name = record["stream"]
        if name not in self._plans:
            raise IngestError(f"{self._pipeline.connector} sent a record of the stream {name}, which was not asked for")
        each, count = self._plans[name], self.counts[name]
        emitted_at, data = record["emitted_at"], record["data"]
        headers = None
        try:
            value = self._encoders[name].encode(data, emitted_at)
        except Misfit as misfit:
            value = orjson.dumps(data)
            headers = [(REASON, str(misfit).encode(errors="replace")), (EMITTED_AT, str(emitted_at).encode())]
            count["misfits"] += 1
        if len(value) > self._pipeline.max_record_bytes:
            raise IngestError(
                f"{self._pipeline.at('streams', name)}: record {count['records'] + 1} of this run has {len(value)} bytes, and "
                f"{each.topic} takes {self._pipeline.max_record_bytes}; raise max_record_bytes in the pipeline file"
            )
        key = orjson.dumps([data.get(field) for field in each.key]) if each.key else None
        self._produce(each.topic, value, key, headers)
        count["records"] += 1
        self._records += 1
        if time.monotonic() - self._began > LONGEST_TRANSACTION_S:
            self.commit()  # without a cursor: should the run break off, these come again

    def state(self, state: Mapping[str, Any]) -> None:
        match state.get("type"):
            case "STREAM":
                name = state["stream"]["stream_descriptor"]["name"]
                if name in self._plans and self._plans[name].incremental:
                    self._states[name], self._changed = state, True
            case "GLOBAL":
                self._states[""], self._changed = state, True
            case _:
                raise IngestError(
                    f"{self._pipeline.connector}=={self._pipeline.version} gives its cursor as of old, for all streams at once; "
                    "take a later version of the connector"
                )
        if self._records >= COMMIT_RECORDS or time.monotonic() - self._began > COMMIT_S:
            self.commit()

    def commit(self) -> None:
        """Make visible what was produced, and the cursor with it. Raises :class:`IngestError`."""
        if self._changed:
            value = {"states": self._states, "run": self._run}
            self._produce(STATE_TOPIC, orjson.dumps(value), self._pipeline.source.encode(), None)
        if self._open:
            self._kafka(self._producer.commit_transaction, KAFKA_S)
            self.commits += 1
        self._open, self._records, self._changed = False, 0, False

    def _produce(self, topic: str, value: bytes, key: bytes | None, headers: Any) -> None:
        if not self._open:
            self._kafka(self._producer.begin_transaction)
            self._open, self._began = True, time.monotonic()
        while True:
            try:
                self._producer.produce(topic, value, key, headers=headers)
                break
            except BufferError:
                self._producer.poll(0.5)
        self._producer.poll(0)

    def _kafka(self, deed: Any, *arguments: Any) -> None:
        from confluent_kafka import KafkaException

        try:
            deed(*arguments)
        except KafkaException as error:
            found = error.args[0]
            more = "; another run of this source has taken over" if "fenced" in found.str().lower() else ""
            raise IngestError(f"Kafka did not take the records of {self._pipeline.source}: {found.str()}{more}") from None


def load_state(source: str, endpoints: Endpoints) -> dict[str, Any]:
    """The source's cursor by stream ('' for one that all streams share), as its last committed transaction left it."""
    from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

    settings = {
        "group.id": "shudl.ingest.state",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
    }
    consumer = Consumer(client_config(endpoints["shudl_kafka"], settings))
    found: dict[str, Any] = {}
    try:
        consumer.assign([TopicPartition(STATE_TOPIC, 0, 0)])
        deadline = time.monotonic() + KAFKA_S
        while time.monotonic() < deadline:
            message = consumer.poll(1.0)
            if message is None:
                continue
            if message.error():
                if message.error().code() == KafkaError._PARTITION_EOF:
                    return found
                if message.error().code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    return {}
                raise KafkaException(message.error())
            if message.key() == source.encode():
                found = orjson.loads(message.value())["states"] if message.value() else {}
        raise IngestError(f"the cursors in {STATE_TOPIC} could not be read within {KAFKA_S} s")
    finally:
        consumer.close()
