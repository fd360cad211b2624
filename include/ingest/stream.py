"""Kafka to Iceberg: one Spark application for all streams of a source (:mod:`include.ingest.stream_job`)."""

from __future__ import annotations

import io
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from include.cdc.pipelines import OFFSET, PARTITION
from include.ingest import deadletters
from include.ingest.airbyte_schema import KEY, Columns, Encoder
from include.ingest.deadletters import TRIES, Counts, DeadLetter, IngestError, Refused
from include.ingest.sources import EMITTED_AT, LOADED_AT, AirbytePipeline
from include.ingest.stream_schema import merged
from include.lake.catalog import BUCKET, Lake
from include.platform.endpoints import Endpoint, Endpoints
from include.platform.settings import settings
from include.platform.spark import SparkError, submit

JOB = Path(__file__).with_name("stream_job.py")
BATCH_ROWS = 1_000_000
READ_TASKS = 2
REPLAYED_AT_ONCE = 200
TIMEOUT_S = 6 * 3600
LONGEST_VALUE = 100_000_000
"""Bytes of a text or binary value in Avro: what claims to be longer is no record, and nothing is allocated for it."""


def load(pipeline: AirbytePipeline, endpoints: Endpoints, run: str, fault: str = "") -> dict[str, dict[str, Any]]:
    """Write what is in the source's topics into its tables; by table what was read, written and is dead, and what changed.

    Raises :class:`IngestError` when a table could not be written, rows are unaccounted for, or too many are dead; the other
    tables are written all the same.
    """
    lake = Lake.from_endpoints(endpoints)
    deadletters.ensure(lake)
    found = _submit(pipeline.job, job(pipeline, endpoints, run, fault), endpoints)
    failed = [f"{table}: {told['error']}" for table, told in found.items() if "error" in told]
    refused = []
    for table, told in found.items():
        counts = Counts(told["read"], told["written"], told["dead"])
        try:
            counts.check(table)
            pipeline.threshold.check(table, counts)
        except Refused as error:
            refused.append(str(error))
    if failed or refused:
        raise (Refused if refused else IngestError)("\n".join((*failed, *refused)))
    return found


def job(pipeline: AirbytePipeline, endpoints: Endpoints, run: str, fault: str = "") -> dict[str, Any]:
    """What the application is to do. Holds Kafka's password: for a private file."""
    streams = [
        {
            "table": pipeline.lake_table(name),
            "topic": pipeline.topic(name),
            "key": _key(pipeline, name, endpoints),
            "checkpoint": f"s3a://{BUCKET}/{pipeline.checkpoint(name)}",
        }
        for name in pipeline.streams
    ]
    return {
        "run": run,
        "kafka": kafka_options(endpoints["shudl_kafka"]),
        "registry": f"{endpoints['shudl_registry'].url}/apis/ccompat/v7",
        "registry_ca": endpoints["shudl_kafka"].extra.get("ssl.ca.location", ""),
        "dead_letters": deadletters.TABLE,
        "batch_rows": BATCH_ROWS,
        "read_tasks": READ_TASKS,
        "streams": streams,
        "fault": fault,
    }


def _key(pipeline: AirbytePipeline, stream: str, endpoints: Endpoints) -> list[str]:
    """The columns of the key by which a table is deduplicated; none for one that is not."""
    from include.ingest.registry import Registry

    if pipeline.streams[stream].write != "dedup":
        return []
    versions = list(Registry(endpoints).versions(f"{pipeline.topic(stream)}-value").values())
    if versions and (key := versions[-1].get(KEY)):
        return key
    raise IngestError(f"{pipeline.at('streams', stream)}: nothing has been read of it yet, and its key is not known")


def kafka_options(endpoint: Endpoint) -> dict[str, str]:
    """librdkafka's settings of a connection as those of Spark's Kafka source."""
    extra = endpoint.extra
    options = {"kafka.bootstrap.servers": extra["bootstrap.servers"]}
    for name in ("security.protocol", "sasl.mechanism"):
        if name in extra:
            options[f"kafka.{name}"] = extra[name]
    if "sasl.username" in extra:
        kind = "scram.ScramLoginModule" if extra.get("sasl.mechanism", "").startswith("SCRAM") else "plain.PlainLoginModule"
        user, password = (extra[name].replace("\\", "\\\\").replace('"', '\\"') for name in ("sasl.username", "sasl.password"))
        module = f"org.apache.kafka.common.security.{kind} required"
        options["kafka.sasl.jaas.config"] = f'{module} username="{user}" password="{password}";'
    if ca := extra.get("ssl.ca.location"):  # its text: executors are elsewhere
        options |= {"kafka.ssl.truststore.type": "PEM", "kafka.ssl.truststore.certificates": Path(ca).read_text()}
    return options


def _submit(name: str, wanted: dict[str, Any], endpoints: Endpoints) -> dict[str, dict[str, Any]]:
    limits = f"-Dorg.apache.avro.limits.string.maxLength={LONGEST_VALUE} -Dorg.apache.avro.limits.bytes.maxLength={LONGEST_VALUE}"
    conf = {
        "spark.driver.extraJavaOptions": limits,
        "spark.executor.extraJavaOptions": limits,
        "spark.sql.avro.datetimeRebaseModeInRead": "CORRECTED",
        "spark.sql.streaming.kafka.useDeprecatedOffsetFetching": "false",
    }
    with _private(name, wanted) as (job_file, result_file):
        try:
            submit(name, JOB, [str(job_file), str(result_file)], endpoints, conf, TIMEOUT_S)
        except SparkError as error:
            raise IngestError(str(error)) from None
        return json.loads(result_file.read_text())


@contextmanager
def _private(name: str, wanted: dict[str, Any]) -> Iterator[tuple[Path, Path]]:
    """A file with the job, which only this user can read, and one for its result; both are gone at the end."""
    with tempfile.TemporaryDirectory(prefix=f"{name}.", dir=settings.run("ingest")) as folder:
        job_file = Path(folder) / "job.json"
        with os.fdopen(os.open(job_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(wanted, file)
        yield job_file, Path(folder) / "result.json"


def replay(endpoints: Endpoints, target: str, letters: Iterable[DeadLetter], run: str) -> set[str]:
    """See :class:`include.ingest.deadletters.Replayer`. Settled is also a row that the table has, or has a later one of.

    Raises :class:`IngestError` when the table lacks a column that the stream has now.
    """
    from include.ingest.registry import Registry

    table = Lake.from_endpoints(endpoints).pyiceberg().load_table(target)
    registry = Registry(endpoints)
    settled: set[str] = set()
    by_topic: dict[str, list[DeadLetter]] = {}
    for letter in letters:
        by_topic.setdefault(letter.origin, []).append(letter)
    for topic, found in by_topic.items():
        versions = registry.versions(f"{topic}-value")
        if not versions:
            continue
        rows = {letter.id: row for letter in found if (row := _row(letter, versions))}
        have = {field.name for field in table.schema().fields}
        if missing := {name for row in rows.values() for name in row} - have:
            raise IngestError(f"{target} lacks {', '.join(sorted(missing))}: run the source's DAG first, which adds columns")
        key = list(versions.values())[-1].get(KEY) or [PARTITION, OFFSET]
        ids = list(rows)
        for start in range(0, len(ids), REPLAYED_AT_ONCE):
            chunk = ids[start : start + REPLAYED_AT_ONCE]
            _write_each_once(table, [rows[each] for each in chunk], key)
            settled.update(chunk)
    return settled


def _row(letter: DeadLetter, versions: dict[int, dict[str, Any]]) -> dict[str, Any] | None:
    """The row that a record is now; None while it is none. A record in JSON is one that did not fit its schema."""
    import fastavro

    place = {PARTITION: int(letter.part), OFFSET: letter.position, LOADED_AT: datetime.now(UTC)}
    try:
        if letter.raw[:1] == b"{":
            schema = list(versions.values())[-1]
            encoded = Encoder(Columns.registered(schema), 0).encode(json.loads(letter.raw), 0)
            row = fastavro.schemaless_reader(io.BytesIO(encoded[5:]), schema, schema)
            row[EMITTED_AT] = None  # the record does not tell
        else:
            schema = versions[int.from_bytes(letter.raw[1:5], "big")] if letter.raw[:1] == b"\0" else None
            row = fastavro.schemaless_reader(io.BytesIO(letter.raw[5:]), schema, merged(versions.values())) if schema else None
    except Exception:  # whatever the bytes are: it stays a dead letter
        return None
    return row and {**row, **place}


def _write_each_once(table: Any, rows: list[dict[str, Any]], key: list[str]) -> None:
    """Rows replace those of their key that are earlier in Kafka, and give way to later ones. A second call does nothing."""
    import pyarrow as pa
    from pyiceberg.exceptions import CommitFailedException
    from pyiceberg.expressions import And, EqualTo, IsNull, Or

    def of(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row[column] for column in key)

    newest = {of(row): row for row in sorted(rows, key=lambda row: row[OFFSET])}
    for attempt in range(TRIES):
        table.refresh()
        parts = [[IsNull(c) if v is None else EqualTo(c, v) for c, v in zip(key, values, strict=True)] for values in newest]
        same = [And(*part) if len(part) > 1 else part[0] for part in parts]
        chosen = Or(*same) if len(same) > 1 else same[0]
        there = {of(row): row[OFFSET] for row in table.scan(chosen, selected_fields=(*key, OFFSET)).to_arrow().to_pylist()}
        due = {values: row for values, row in newest.items() if there.get(values, -1) < row[OFFSET]}
        if not due:
            return
        names = [field.name for field in table.schema().fields]
        made = pa.Table.from_pylist(
            [{name: row.get(name) for name in names} for row in due.values()], schema=table.schema().as_arrow()
        )
        replaced = [each for each, values in zip(same, newest, strict=True) if values in due and values in there]
        try:
            if replaced:
                table.overwrite(made, overwrite_filter=Or(*replaced) if len(replaced) > 1 else replaced[0])
            else:
                table.append(made)
            return
        except CommitFailedException:
            if attempt == TRIES - 1:
                raise
            time.sleep(0.3 * 2**attempt)
