"""Changelogs: Iceberg tables with every change of a source table as a row, append only.

A changelog is written from its topic alone, in order: what it holds ends at some offset. A job that is submitted begins
at the offset after it, so that nothing is missing and nothing twice, whatever became of its checkpoints. While it runs,
Flink restarts it from its checkpoints, and the sink skips what it has committed.
"""

from __future__ import annotations

from include.cdc.pipelines import BEFORE, COMMITTED_AT, LSN, OFFSET, OPERATION, PARTITION, TRANSACTION, Pipeline, PipelineError
from include.cdc.source import SourceTable
from include.cdc.topics import held_offsets, topic_id
from include.lake.catalog import Lake
from include.platform.endpoints import Endpoints
from include.platform.kafka import flink_properties

FORMAT = "avro-confluent"
TOPIC_ID = "shudl.topic-id"
"""The property of a changelog that tells which topic its offsets are of."""


def source_table(pipeline: Pipeline, table: SourceTable, start: int, endpoints: Endpoints) -> str:
    """Flink SQL that reads the table's topic from the offset ``start`` as Debezium's envelopes."""
    row = ", ".join(f"`{column.field}` {column.carried.flink_source}" for column in table.columns)
    columns = (
        f"`before` ROW<{row}>",
        f"`after` ROW<{row}>",
        "`op` STRING",
        "`source` ROW<`lsn` BIGINT, `txId` BIGINT, `ts_ms` BIGINT>",
        "`partition` INT METADATA VIRTUAL",
        "`offset` BIGINT METADATA VIRTUAL",
    )
    options = {
        "connector": "kafka",
        "topic": pipeline.topic(table.name),
        **flink_properties(endpoints["shudl_kafka"]),
        "properties.group.id": pipeline.changelog_job(table.name),
        "properties.isolation.level": "read_committed",
        "scan.startup.mode": "specific-offsets",
        "scan.startup.specific-offsets": f"partition:0,offset:{start}",
        "format": FORMAT,
        f"{FORMAT}.url": f"{endpoints['shudl_registry'].url}/apis/ccompat/v7",
    }
    with_options = ", ".join(f"'{name}' = '{value}'" for name, value in options.items())
    return f"CREATE TEMPORARY TABLE default_catalog.default_database.source ({', '.join(columns)}) WITH ({with_options})"


def insert_statement(pipeline: Pipeline, table: SourceTable, sink_options: str) -> str:
    """Flink SQL that appends the table's changes to its changelog."""
    # A delete has no row after it.
    chosen = [
        f"CASE WHEN `op` = 'd' THEN `before`.`{c.field}` ELSE `after`.`{c.field}` END AS `{c.field}`" for c in table.columns
    ]
    columns = [f"{c.carried.flink_expression.format(c=f'`{c.field}`')} AS `{c.lake_name}`" for c in table.columns]
    columns += [
        f"`op` AS `{OPERATION}`",
        f"`source`.`lsn` AS `{LSN}`",
        f"`source`.`txId` AS `{TRANSACTION}`",
        f"TO_TIMESTAMP_LTZ(`source`.`ts_ms`, 3) AS `{COMMITTED_AT}`",
        f"`partition` AS `{PARTITION}`",
        f"`offset` AS `{OFFSET}`",
    ]
    if not table.key:
        before = ", ".join(c.carried.flink_expression.format(c=f"`before`.`{c.field}`") for c in table.columns)
        columns.append(f"CASE WHEN `op` = 'u' THEN ROW({before}) END AS `{BEFORE}`")
    chosen += ["`before`", "`op`", "`source`", "`partition`", "`offset`"]
    changes = f"SELECT {', '.join(chosen)} FROM default_catalog.default_database.source"
    return (
        f"INSERT INTO lake.`{pipeline.namespace}`.`{pipeline.changelog_name(table.name)}` /*+ OPTIONS({sink_options}) */ "
        f"SELECT {', '.join(columns)} FROM ({changes})"
    )


def next_offset(pipeline: Pipeline, table: SourceTable, lake: Lake, endpoints: Endpoints) -> int:
    """The offset after the last one that the changelog holds, 0 for an empty one.

    Raises :class:`PipelineError` when the topic does not hold what follows.
    """
    from pyiceberg.conversions import from_bytes

    name, topic = pipeline.changelog_table(table.name), pipeline.topic(table.name)
    changelog = lake.pyiceberg().load_table(name)
    field = changelog.schema().find_field(OFFSET)
    bounds = (task.file.upper_bounds[field.field_id] for task in changelog.scan().plan_files())
    start = max((from_bytes(field.field_type, bound) for bound in bounds), default=-1) + 1
    low, high = held_offsets(topic, endpoints)
    known, present = changelog.properties.get(TOPIC_ID), topic_id(topic, endpoints)
    if known is None:
        with changelog.transaction() as transaction:
            transaction.set_properties({TOPIC_ID: present})
    elif known != present or start > high:
        raise PipelineError(
            [
                f"table {name} has the changes up to offset {start - 1} of a topic {topic} that is gone: it was made anew, with "
                f"{high} records; rename the table or drop it, so that another begins with this topic"
            ]
        )
    if start < low:
        raise PipelineError(
            [
                f"table {name} needs the changes from offset {start} of topic {topic}, which no longer holds those before "
                f"{low}; give the pipeline another source name, so that the source is captured anew"
            ]
        )
    return start
