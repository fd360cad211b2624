"""Kafka to Iceberg: one Spark application for all streams of a source (:mod:`include.ingest.stream_job`)."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from include.ingest import deadletters
from include.ingest.airbyte_schema import KEY
from include.ingest.deadletters import Counts, DeadLetter, IngestError
from include.ingest.sources import AirbytePipeline
from include.lake.catalog import BUCKET, Lake
from include.platform.endpoints import Endpoint, Endpoints
from include.platform.settings import settings
from include.platform.spark import SparkError, submit

JOB = Path(__file__).with_name("stream_job.py")
BATCH_ROWS = 250_000
READ_TASKS = 2
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
    problems = []
    for table, told in found.items():
        if error := told.get("error"):
            problems.append(f"{table}: {error}")
            continue
        counts = Counts(told["read"], told["written"], told["dead"])
        for rule in (lambda: counts.check(table), lambda: pipeline.threshold.check(table, counts)):
            try:
                rule()
            except IngestError as error:
                problems.append(str(error))
    if problems:
        raise IngestError("\n".join(problems))
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


def replay(endpoints: Endpoints, target: str, letters: Iterable[DeadLetter], run: str) -> Iterable[str]:
    """See :class:`include.ingest.deadletters.Replayer`."""
    raise NotImplementedError
