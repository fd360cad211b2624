"""The Debezium connector of a pipeline, over Kafka Connect's REST API."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from include.cdc import selection
from include.cdc.pipelines import HEARTBEAT_TABLE, Pipeline, PipelineError
from include.cdc.source import SourceTable
from include.platform.endpoints import Endpoint, Endpoints
from include.platform.flink import first_cause

HEARTBEAT_INTERVAL_MS = 5000
RETENTION_MS = 7 * 24 * 3600 * 1000
MESSAGE_BYTES = 64 << 20
"""The largest change: a row as it was and as it is. No other setting limits it: consumers take what exceeds their own."""
BUFFER_BYTES = 96 << 20
"""What Debezium may hold of changes, and of a snapshot's rows in one fetch."""
TLS = ("sslmode", "sslrootcert")
"""What a source's connection may say of TLS, in libpq's words and Debezium's. Paths are those in Connect's container."""
REGISTRY_ANSWERS_MS = 15_000
REGISTRY_AWAY_MS = 30 * 60_000
CHANGED_SELECTION = (
    "its columns, exclude, mask or where has changed since it was captured; take the change back, or give this source "
    "another name, so that it is captured anew"
)


def settings_of(
    pipeline: Pipeline, tables: Sequence[SourceTable], source: Endpoint, registry_url: str, password: str, mask_salt: str
) -> dict[str, str]:
    """The connector's configuration. ``password`` is a reference that Kafka Connect resolves.

    The salt is part of a setting's name, where no reference can stand: Connect must not log connectors' settings.
    """
    schema, heartbeat = HEARTBEAT_TABLE.split(".")
    avro = "io.confluent.connect.avro.AvroConverter"
    return {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "tasks.max": "1",
        "database.hostname": source.host,
        "database.port": str(source.port),
        "database.user": source.login,
        "database.password": password,
        "database.dbname": source.schema,
        **{f"database.{name}": source.extra[name] for name in TLS if name in source.extra},
        "topic.prefix": pipeline.source,
        "plugin.name": "pgoutput",
        "slot.name": pipeline.slot,
        "slot.failover": "true",
        "publication.name": pipeline.publication,
        "publication.autocreate.mode": "disabled",
        "table.include.list": ",".join(map(selection.table_regex, (*sorted(pipeline.tables), HEARTBEAT_TABLE))),
        **selection.connector_settings(pipeline, mask_salt, tables),
        "snapshot.mode": "initial",
        # A few rows first, then as many as fit.
        "snapshot.fetch.size": "4",
        "driver.adaptiveFetch": "true",
        "driver.adaptiveFetchMaximum": "5000",
        "driver.maxResultBuffer": str(BUFFER_BYTES),
        "heartbeat.interval.ms": str(HEARTBEAT_INTERVAL_MS),
        "heartbeat.action.query": f"UPDATE {schema}.{heartbeat} SET beat = now() WHERE id = 1",
        "tombstones.on.delete": "false",
        "decimal.handling.mode": "string",
        "time.precision.mode": "isostring",
        "interval.handling.mode": "string",
        "hstore.handling.mode": "map",
        "include.unknown.datatypes": "true",
        # A value that cannot be converted stops the connector; Debezium's default is to write NULL in its place.
        "event.converting.failure.handling.mode": "fail",
        "field.name.adjustment.mode": "avro",
        "schema.name.adjustment.mode": "avro",
        "max.batch.size": "8192",
        "max.queue.size": "32768",
        "max.queue.size.in.bytes": str(BUFFER_BYTES),
        "poll.interval.ms": "100",
        "status.update.interval.ms": "2000",
        "retriable.restart.connector.wait.ms": "2000",
        "errors.max.retries": "-1",
        "key.converter": avro,
        "key.converter.schema.registry.url": registry_url,
        "key.converter.http.read.timeout.ms": str(REGISTRY_ANSWERS_MS),
        "value.converter": avro,
        "value.converter.schema.registry.url": registry_url,
        "value.converter.http.read.timeout.ms": str(REGISTRY_ANSWERS_MS),
        # A registry that does not answer is asked again; without this the first time would end the task.
        "errors.retry.timeout": str(REGISTRY_AWAY_MS),
        "errors.retry.delay.max.ms": "5000",
        # Flink's Debezium format shows only `before` and `after`: the source block (LSN, commit time) travels as a header.
        "header.converter": "org.apache.kafka.connect.json.JsonConverter",
        "header.converter.schemas.enable": "false",
        "transforms": "source",
        "transforms.source.type": "org.apache.kafka.connect.transforms.HeaderFrom$Value",
        "transforms.source.fields": "source",
        "transforms.source.headers": "source",
        "transforms.source.operation": "copy",
        "transforms.source.predicate": "captured",
        "predicates": "captured",
        "predicates.captured.type": "org.apache.kafka.connect.transforms.predicates.TopicNameMatches",
        "predicates.captured.pattern": rf"{pipeline.source}\..*",
        "topic.creation.default.replication.factor": "-1",
        "topic.creation.default.partitions": "1",
        "topic.creation.default.cleanup.policy": "delete",
        "topic.creation.default.retention.ms": str(RETENTION_MS),
        "topic.creation.default.compression.type": "lz4",
        "topic.creation.default.max.message.bytes": str(MESSAGE_BYTES),
        "producer.override.max.request.size": str(MESSAGE_BYTES),
        "producer.override.buffer.memory": str(MESSAGE_BYTES),
        "producer.override.compression.type": "lz4",
        "producer.override.linger.ms": "20",
        "producer.override.batch.size": "131072",
    }


def write_secret(folder: str, name: str, value: str) -> bool:
    """Put ``value`` into the file ``name`` (mode 0600) that Kafka Connect reads. False when it is there already."""
    path = Path(folder) / name
    if path.exists() and path.read_text() == value:
        return False
    fresh = path.with_name(f".{name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(value)
    fresh.replace(path)
    return True


def password_reference(source: str, connect: Endpoint) -> str:
    """What stands for the source's password in its connector's configuration: a file of ours, or as an external Kafka
    Connect has it, which its connection says (``{source}`` is the source's name).
    """
    if "password_reference" in connect.extra:
        return connect.extra["password_reference"].replace("{source}", source)
    return f"${{dir:{connect.extra['secrets_dir']}:{source}}}"


def reconcile_connector(
    pipeline: Pipeline, tables: Sequence[SourceTable], endpoints: Endpoints, timeout_s: float = 90
) -> list[str]:
    """Make the connector and its configuration match, restart failed tasks, wait until it runs; return what changed.

    Raises :class:`PipelineError` with the connector's own first cause when it does not run within ``timeout_s``.
    """
    source = endpoints[pipeline.connection]
    connect = endpoints["shudl_connect"]
    changes: list[str] = []
    ours = "password_reference" not in connect.extra
    changed_secret = ours and write_secret(connect.extra["secrets_dir"], pipeline.source, source.password)
    registry_url = f"{endpoints['shudl_registry'].url}/apis/ccompat/v7"
    salt = selection.mask_salt(pipeline, endpoints)
    wanted = settings_of(pipeline, tables, source, registry_url, password_reference(pipeline.source, connect), salt)
    with httpx.Client(base_url=f"{connect.url}/connectors/{pipeline.connector}", timeout=30) as http:
        present = http.get("/config")
        changed = selection.changed(pipeline, present.json(), salt) if present.is_success else []
        if changed and has_captured(pipeline, endpoints):
            raise PipelineError([f"{pipeline.at('tables', table)}: {CHANGED_SELECTION}" for table in changed])
        if present.status_code == 404 or {k: v for k, v in present.json().items() if k != "name"} != wanted:
            answer = _retry_conflict(lambda: http.put("/config", json=wanted))
            if not answer.is_success:
                raise PipelineError([f"connector {pipeline.connector}: {first_cause(_message(answer))}"])
            changes.append(f"{'made' if present.status_code == 404 else 'changed'} connector {pipeline.connector}")
        elif changed_secret:
            _retry_conflict(lambda: http.post("/restart?includeTasks=true"))
            changes.append(f"gave connector {pipeline.connector} a new password")
        deadline = time.monotonic() + timeout_s
        restarted = False
        while True:
            status = http.get("/status").json()
            state, reason = _state(status)
            if state == "RUNNING":
                return changes
            if state == "FAILED" and not restarted:
                _retry_conflict(lambda: http.post("/restart?includeTasks=true&onlyFailed=true"))
                changes.append(f"restarted connector {pipeline.connector}: {reason}")
                restarted = True
            if state == "PAUSED" or state == "STOPPED":
                _retry_conflict(lambda: http.put("/resume"))
            if time.monotonic() > deadline:
                raise PipelineError([f"connector {pipeline.connector} is {state} after {timeout_s:.0f} s: {reason}"])
            time.sleep(0.5)


def changed_selection(pipeline: Pipeline, endpoints: Endpoints) -> list[str]:
    """The tables that are captured already, and whose columns, masks or rows are to be others than those captured.

    Their topics and their tables in the lake hold what was selected before; nothing would make them what they should be.
    """
    salt = selection.mask_salt(pipeline, endpoints)
    answer = httpx.get(f"{endpoints['shudl_connect'].url}/connectors/{pipeline.connector}/config", timeout=20)
    return [] if answer.status_code == 404 else selection.changed(pipeline, answer.raise_for_status().json(), salt)


def connector_state(pipeline: Pipeline, endpoints: Endpoints) -> tuple[str, str]:
    """``(state, reason)``: RUNNING, FAILED, …, or MISSING."""
    answer = httpx.get(f"{endpoints['shudl_connect'].url}/connectors/{pipeline.connector}/status", timeout=5)
    return ("MISSING", "") if answer.status_code == 404 else _state(answer.raise_for_status().json())


def acknowledged_lsn(pipeline: Pipeline, endpoints: Endpoints) -> int | None:
    """The LSN up to which Kafka holds every captured change, or None during the first snapshot.

    It is the source offset that Kafka Connect committed: all records up to it have been acknowledged.
    """
    for offset in _offsets(pipeline, endpoints):
        if offset.get("snapshot") or "lsn" not in offset:
            return None
        return int(offset["lsn"])
    return None


def has_captured(pipeline: Pipeline, endpoints: Endpoints) -> bool:
    """Whether the connector has read anything from its source."""
    return connector_state(pipeline, endpoints)[0] != "MISSING" and any(_offsets(pipeline, endpoints))


def _offsets(pipeline: Pipeline, endpoints: Endpoints) -> list[dict[str, Any]]:
    answer = httpx.get(f"{endpoints['shudl_connect'].url}/connectors/{pipeline.connector}/offsets", timeout=20)
    return [item["offset"] or {} for item in answer.raise_for_status().json()["offsets"]]


def _state(status: dict[str, Any]) -> tuple[str, str]:
    if "connector" not in status:
        return "MISSING", status.get("message", "")
    parts = [status["connector"], *status.get("tasks", [])]
    for part in parts:
        if part["state"] == "FAILED":
            return "FAILED", first_cause(part.get("trace", ""))
    if not status.get("tasks"):
        return "STARTING", "no task yet"
    return next((part["state"] for part in parts if part["state"] != "RUNNING"), "RUNNING"), ""


def _message(answer: httpx.Response) -> str:
    try:
        return answer.json()["message"]
    except (ValueError, KeyError):
        return answer.text


def _retry_conflict(call: Any, timeout_s: float = 60) -> httpx.Response:
    """Connect answers 409 while its workers rebalance."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = call()
        if answer.status_code != 409 or time.monotonic() > deadline:
            return answer
        time.sleep(0.5)
