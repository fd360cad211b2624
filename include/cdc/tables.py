"""The Iceberg tables of a pipeline, made by PyIceberg."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from include.cdc.pipelines import (
    BEFORE,
    COMMITTED_AT,
    LSN,
    OFFSET,
    OPERATION,
    PARTITION,
    TRANSACTION,
    Pipeline,
    PipelineError,
)
from include.cdc.source import SourceTable
from include.lake.catalog import Lake, existing

if TYPE_CHECKING:
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table

PROPERTIES = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    "write.distribution-mode": "none",
    "commit.retry.num-retries": "20",
    "commit.retry.min-wait-ms": "50",
}


UPSERTS = {"write.upsert.enabled": "true"}


def iceberg_schema(table: SourceTable) -> Schema:
    """The Iceberg schema of a mirror: field ids from 1, the primary key as identifier."""
    from pyiceberg.schema import Schema
    from pyiceberg.types import LongType, NestedField, TimestamptzType

    fields = [
        NestedField(number, column.lake_name, column.carried.iceberg(), required=column.name in table.key)
        for number, column in enumerate(table.columns, start=1)
    ]
    fields.append(NestedField(len(fields) + 1, LSN, LongType()))
    fields.append(NestedField(len(fields) + 1, COMMITTED_AT, TimestamptzType()))
    return Schema(*fields, identifier_field_ids=[f.field_id for f in fields if f.required])


def changelog_schema(table: SourceTable) -> Schema:
    """The Iceberg schema of a changelog: field ids from 1, no identifier, every column optional."""
    from pyiceberg.schema import Schema
    from pyiceberg.types import IntegerType, LongType, NestedField, StringType, StructType, TimestamptzType

    columns = [(column.lake_name, column.carried.iceberg()) for column in table.columns]
    columns += [
        (OPERATION, StringType()),
        (LSN, LongType()),
        (TRANSACTION, LongType()),
        (COMMITTED_AT, TimestamptzType()),
        (PARTITION, IntegerType()),
        (OFFSET, LongType()),
    ]
    if not table.key:
        first = len(columns) + 2
        before = [NestedField(number, c.lake_name, c.carried.iceberg()) for number, c in enumerate(table.columns, start=first)]
        columns.append((BEFORE, StructType(*before)))
    return Schema(*(NestedField(number, name, kind) for number, (name, kind) in enumerate(columns, start=1)))


def reconcile_tables(lake: Lake, pipeline: Pipeline, tables: list[SourceTable]) -> list[str]:
    """Make the namespace and each missing table; return what changed.

    Raises :class:`PipelineError` when a table that exists has other columns than its source.
    """
    from pyiceberg.exceptions import NamespaceAlreadyExistsError

    catalog = lake.pyiceberg()
    changes: list[str] = []
    try:
        catalog.create_namespace(pipeline.namespace)
        changes.append(f"made namespace {pipeline.namespace}")
    except NamespaceAlreadyExistsError:
        pass
    problems: list[str] = []
    for name, wanted, properties in _wanted(pipeline, tables):
        present = existing(catalog, name)
        if present is None:
            catalog.create_table(name, wanted, properties=properties)
            changes.append(f"made table {name}")
        else:
            problems += _differences(name, present, wanted)
    if problems:
        raise PipelineError(problems)
    return changes


def _wanted(pipeline: Pipeline, tables: list[SourceTable]) -> Iterator[tuple[str, Schema, dict[str, str]]]:
    for table in tables:
        kept = pipeline.tables[table.name]
        if kept.mirrored:
            yield pipeline.iceberg_table(table.name), iceberg_schema(table), PROPERTIES | UPSERTS
        if kept.logged:
            yield pipeline.changelog_table(table.name), changelog_schema(table), PROPERTIES


def _differences(name: str, present: Table, wanted: Schema) -> list[str]:
    have = {field.name: str(field.field_type) for field in present.schema().fields}
    want = {field.name: str(field.field_type) for field in wanted.fields}
    return [
        f"table {name}, column {column}: the lake has {have.get(column, 'no such column')}, "
        f"the source needs {want.get(column, 'no such column')}; take the change back, or give the pipeline another source "
        "name, so that the source is captured anew"
        for column in sorted(have.keys() | want.keys())
        if have.get(column) != want.get(column)
    ]
