"""The Iceberg tables of a pipeline, made by PyIceberg."""

from __future__ import annotations

from typing import TYPE_CHECKING

from include.cdc.pipelines import COMMITTED_AT, LSN, Pipeline, PipelineError
from include.cdc.source import SourceTable
from include.lake.catalog import Lake

if TYPE_CHECKING:
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table

PROPERTIES = {
    "format-version": "2",
    "write.upsert.enabled": "true",
    "write.parquet.compression-codec": "zstd",
    "write.distribution-mode": "none",
    "commit.retry.num-retries": "20",
    "commit.retry.min-wait-ms": "50",
}


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


def reconcile_tables(lake: Lake, pipeline: Pipeline, tables: list[SourceTable]) -> list[str]:
    """Make the namespace and each missing table; return what changed.

    Raises :class:`PipelineError` when a table that exists has other columns than its source.
    """
    from pyiceberg.exceptions import NamespaceAlreadyExistsError, NoSuchTableError

    catalog = lake.pyiceberg()
    changes: list[str] = []
    try:
        catalog.create_namespace(pipeline.namespace)
        changes.append(f"made namespace {pipeline.namespace}")
    except NamespaceAlreadyExistsError:
        pass
    problems: list[str] = []
    for table in tables:
        name, wanted = pipeline.iceberg_table(table.name), iceberg_schema(table)
        try:
            present = catalog.load_table(name)
        except NoSuchTableError:
            catalog.create_table(name, wanted, properties=PROPERTIES)
            changes.append(f"made table {name}")
            continue
        problems += _differences(name, present, wanted)
    if problems:
        raise PipelineError(problems)
    return changes


def _differences(name: str, present: Table, wanted: Schema) -> list[str]:
    have = {field.name: str(field.field_type) for field in present.schema().fields}
    want = {field.name: str(field.field_type) for field in wanted.fields}
    return [
        f"table {name}, column {column}: the lake has {have.get(column, 'no such column')}, "
        f"the source needs {want.get(column, 'no such column')}"
        for column in sorted(have.keys() | want.keys())
        if have.get(column) != want.get(column)
    ]
