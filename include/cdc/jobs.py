"""The Flink jobs of a pipeline: one for each mirror and each changelog, found by name.

A mirror's job is restarted from its last retained checkpoint, a changelog's from where the changelog ends.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from include.cdc import changelog
from include.cdc.pipelines import COMMITTED_AT, HEADERS, LSN, Pipeline, PipelineError
from include.cdc.source import SourceTable
from include.cdc.topics import forget_group, held_offsets
from include.lake.catalog import Lake
from include.platform.endpoints import Endpoints
from include.platform.flink import JobManager, SqlGateway
from include.platform.kafka import flink_properties

ALIVE = ("CREATED", "INITIALIZING", "RUNNING", "RESTARTING", "FAILING", "RECONCILING", "CANCELLING")
FORMAT = "debezium-avro-confluent"
SINK_OPTIONS = {
    # The sink compacts its own table: upserts leave equality deletes, which every reader has to apply.
    "flink-maintenance.rewrite.enabled": "true",
    "flink-maintenance.rewrite.schedule.commit-count": "30",
}


@dataclass(frozen=True)
class TableJob:
    """What is needed to submit one job of a table. ``table_uuid`` is the Iceberg table's that it writes."""

    pipeline: Pipeline
    table: SourceTable
    table_uuid: str
    checkpoint_root: Path
    changelog: bool = False
    """Whether it writes the changelog; the mirror otherwise."""

    @property
    def name(self) -> str:
        return (self.pipeline.changelog_job if self.changelog else self.pipeline.job)(self.table.name)

    @property
    def checkpoints(self) -> Path:
        """Checkpoints belong to one incarnation of the table: a table made anew starts from the topic's beginning."""
        return self.checkpoint_root / f"{self.name}-{self.table_uuid[:8]}"

    def latest_checkpoint(self) -> Path | None:
        """The newest complete checkpoint that any run of this job retained."""
        found = sorted(self.checkpoints.glob("*/chk-*/_metadata"), key=lambda path: path.stat().st_mtime)
        return found[-1].parent if found else None

    def prune(self, job_id: str) -> None:
        """Remove the checkpoints of former runs once the run ``job_id`` has its own."""
        if not any((self.checkpoints / job_id).glob("chk-*/_metadata")):
            return
        for folder in self.checkpoints.iterdir():
            if folder.name != job_id:
                shutil.rmtree(folder, ignore_errors=True)


def mirror_source(job: TableJob, endpoints: Endpoints) -> str:
    """Flink SQL that reads the table's topic as changes of rows."""
    columns = [f"`{c.field}` {c.carried.flink_source}" for c in job.table.columns]
    key = ", ".join(f"`{c.field}`" for c in job.table.columns if c.name in job.table.key)
    options = {
        "connector": "kafka",
        "topic": job.pipeline.topic(job.table.name),
        **flink_properties(endpoints["shudl_kafka"]),
        "properties.group.id": job.name,
        "properties.isolation.level": "read_committed",
        "scan.startup.mode": "earliest-offset",
        "format": FORMAT,
        f"{FORMAT}.url": f"{endpoints['shudl_registry'].url}/apis/ccompat/v7",
    }
    columns.append(f"`{HEADERS}` MAP<STRING, BYTES> METADATA FROM 'headers' VIRTUAL")
    columns.append(f"PRIMARY KEY ({key}) NOT ENFORCED")
    with_options = ", ".join(f"'{name}' = '{value}'" for name, value in options.items())
    return f"CREATE TEMPORARY TABLE default_catalog.default_database.source ({', '.join(columns)}) WITH ({with_options})"


def mirror_statement(job: TableJob) -> str:
    """Flink SQL that upserts the table's changes into its mirror."""
    origin = f"DECODE(`{HEADERS}`['source'], 'UTF-8')"
    columns = [f"{c.carried.flink_expression.format(c=f'`{c.field}`')} AS `{c.lake_name}`" for c in job.table.columns]
    columns.append(f"CAST(JSON_VALUE({origin}, '$.lsn') AS BIGINT) AS `{LSN}`")
    columns.append(f"TO_TIMESTAMP_LTZ(CAST(JSON_VALUE({origin}, '$.ts_ms') AS BIGINT), 3) AS `{COMMITTED_AT}`")
    namespace, name = job.pipeline.namespace, job.pipeline.iceberg_name(job.table.name)
    return (
        f"INSERT INTO lake.`{namespace}`.`{name}` /*+ OPTIONS({sink_options()}) */ "
        f"SELECT {', '.join(columns)} FROM default_catalog.default_database.source"
    )


def sink_options() -> str:
    return ", ".join(f"'{key}' = '{value}'" for key, value in SINK_OPTIONS.items())


def retire_jobs(pipeline: Pipeline, endpoints: Endpoints) -> list[str]:
    """Cancel the source's jobs that the pipeline file no longer asks for; return what changed.

    Their checkpoints and their tables in the lake stay as they are.
    """
    manager = JobManager(endpoints["shudl_flink"].url)
    prefix, wanted = f"{pipeline.connector}.", {name for table in pipeline.tables for name in job_names(pipeline, table)}
    changes: list[str] = []
    for job in manager.jobs():
        if job["name"].startswith(prefix) and job["name"] not in wanted and job["state"] in ALIVE:
            manager.cancel(job["jid"])
            table = f"{pipeline.namespace}.{job['name'].removeprefix(prefix)}"
            changes.append(f"cancelled job {job['name']} ({job['jid']}), which the pipeline no longer has; table {table} stays")
    return changes


def job_names(pipeline: Pipeline, table: str) -> list[str]:
    """The jobs that ``schema.table`` needs."""
    kept = pipeline.tables[table]
    return [pipeline.job(table)] * kept.mirrored + [pipeline.changelog_job(table)] * kept.logged


def reconcile_job(job: TableJob, lake: Lake, endpoints: Endpoints) -> list[str]:
    """Make exactly this one job run; return what changed. Does not wait for the job.

    Where several bear the name, the oldest stays. A mirror's job that ended is submitted again from its latest
    retained checkpoint; without one it reads the topic from its beginning, which must still be there. A changelog's
    begins where the changelog ends.
    """
    manager = JobManager(endpoints["shudl_flink"].url)
    alive = sorted((j for j in manager.jobs() if j["name"] == job.name and j["state"] in ALIVE), key=lambda j: j["start-time"])
    changes: list[str] = []
    for surplus in alive[1:]:
        manager.cancel(surplus["jid"])
        changes.append(f"cancelled a second job {job.name} ({surplus['jid']})")
    if alive:
        job.prune(alive[0]["jid"])
        return changes
    properties = {
        "pipeline.name": job.name,
        "execution.runtime-mode": "streaming",
        "execution.checkpointing.dir": job.checkpoints.as_uri(),
        "table.local-time-zone": "UTC",
        "table.exec.iceberg.use-v2-sink": "true",
        "table.dml-sync": "false",
        # One partition and parallelism 1 keep a key's changes in order, so the sink needs no state to put them in order.
        "table.exec.sink.upsert-materialize": "NONE",
    }
    if job.changelog:
        start = changelog.next_offset(job.pipeline, job.table, lake, endpoints)
        source = changelog.source_table(job.pipeline, job.table, start, endpoints)
        statement = changelog.insert_statement(job.pipeline, job.table, sink_options())
        checkpoint, origin = None, f"offset {start} of its topic"
    else:
        checkpoint = job.latest_checkpoint()
        source, statement = mirror_source(job, endpoints), mirror_statement(job)
        origin = f"checkpoint {checkpoint.name}" if checkpoint else "the beginning of its topic"
        if not checkpoint:
            _require_whole_topic(job, endpoints)
    if checkpoint:
        properties["execution.state-recovery.path"] = checkpoint.as_uri()
    else:
        forget_group(job.name, endpoints)  # what a former run had read says nothing of this one
    with SqlGateway(endpoints["shudl_flink_gateway"].url, properties) as gateway:
        gateway.execute(lake.flink_catalog("lake"))
        gateway.execute(source)
        result = gateway.execute(statement, timeout_s=120)
    return [*changes, f"submitted job {job.name} ({result.job_id}) from {origin}"]


def _require_whole_topic(job: TableJob, endpoints: Endpoints) -> None:
    topic = job.pipeline.topic(job.table.name)
    low, _ = held_offsets(topic, endpoints)
    if low > 0:
        raise PipelineError(
            [
                f"job {job.name} has no checkpoint and topic {topic} no longer holds its first {low} records: "
                f"drop the table {job.pipeline.iceberg_table(job.table.name)} and connector {job.pipeline.connector}, "
                "so that the source is snapshot anew"
            ]
        )
