"""The PostgreSQL side of a pipeline: what its tables look like, its publication, slot and heartbeat."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

from include.cdc import selection
from include.cdc.pipelines import HEARTBEAT_TABLE, Pipeline, PipelineError
from include.cdc.types import Carried, UnsupportedType, carried


@dataclass(frozen=True)
class Column:
    name: str
    type_name: str
    nullable: bool
    carried: Carried


@dataclass(frozen=True)
class SourceTable:
    """One captured table: its captured columns in order and the names of its primary key, if it has one."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]

    @property
    def identifier(self) -> sql.Composable:
        return sql.Identifier(*self.name.split("."))


_COLUMNS = """
SELECT a.attname, t.typname, NOT a.attnotnull,
       CASE WHEN t.typname = 'numeric' AND a.atttypmod > 0 THEN ((a.atttypmod - 4) >> 16) & 65535 END,
       CASE WHEN t.typname = 'numeric' AND a.atttypmod > 0 THEN ((a.atttypmod - 4) & 2047 # 1024) - 1024 END
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
ORDER BY a.attnum
"""
_KEY = """
SELECT a.attname FROM pg_index i
CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, position)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indrelid = to_regclass(%s) AND i.indisprimary ORDER BY k.position
"""


def quoted(table: str) -> str:
    """``schema.table`` as PostgreSQL writes it, for ``to_regclass``."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in table.split("."))


def describe(connection: psycopg.Connection, pipeline: Pipeline) -> list[SourceTable]:
    """The pipeline's tables as they are in the source, with the columns that are captured.

    ``connection`` must be in autocommit mode. Raises :class:`PipelineError` with all problems.
    """
    problems: list[str] = []
    tables: list[SourceTable] = []
    level, replication = connection.execute(
        "SELECT current_setting('wal_level'), (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user)"
    ).fetchone()
    if level != "logical":
        problems.append(f"source {pipeline.source}: wal_level is {level}; set wal_level = logical and restart PostgreSQL")
    if not replication:
        problems.append(f"source {pipeline.source}: the connection's role may not replicate; ALTER ROLE … REPLICATION")
    for name, kept in pipeline.tables.items():
        rows = connection.execute(_COLUMNS, (quoted(name),)).fetchall()
        if not rows:
            problems.append(f"table {name}: does not exist in {pipeline.connection}, or the role may not see it")
            continue
        key = tuple(row[0] for row in connection.execute(_KEY, (quoted(name),)))
        problems += selection.problems(connection, name, kept, [(row[0], row[1]) for row in rows], key)
        columns: list[Column] = []
        for column, type_name, nullable, precision, scale in rows:
            if not selection.captured(kept, column):
                continue
            try:
                travels = carried(type_name, precision, scale)
                travels = selection.masked(travels) if column in kept.mask else travels
                columns.append(Column(column, type_name, nullable, travels))
            except UnsupportedType as error:
                problems.append(f"table {name}, column {column}: {error}")
        tables.append(SourceTable(name, tuple(columns), key))
    if problems:
        raise PipelineError(problems)
    return tables


def reconcile_source(connection: psycopg.Connection, pipeline: Pipeline, tables: list[SourceTable]) -> list[str]:
    """Make heartbeat table, replica identities and publication match; return what changed.

    ``connection`` must be in autocommit mode. Nothing is done when all is as it should be.
    """
    changes: list[str] = []
    schema, heartbeat = HEARTBEAT_TABLE.split(".")
    if connection.execute("SELECT to_regclass(%s)", (HEARTBEAT_TABLE,)).fetchone()[0] is None:
        with connection.transaction():
            connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
            connection.execute(
                sql.SQL("CREATE TABLE {} (id int PRIMARY KEY, beat timestamptz NOT NULL)").format(
                    sql.Identifier(schema, heartbeat)
                )
            )
            connection.execute(sql.SQL("INSERT INTO {} VALUES (1, now())").format(sql.Identifier(schema, heartbeat)))
        changes.append(f"made table {HEARTBEAT_TABLE}")
    wanted = {HEARTBEAT_TABLE: sql.Identifier(schema, heartbeat), **{t.name: t.identifier for t in tables}}
    for name, identifier in wanted.items():
        if (
            connection.execute("SELECT relreplident FROM pg_class WHERE oid = to_regclass(%s)", (quoted(name),)).fetchone()[0]
            != "f"
        ):
            connection.execute(sql.SQL("ALTER TABLE {} REPLICA IDENTITY FULL").format(identifier))
            changes.append(f"set REPLICA IDENTITY FULL on {name}")
    changes += _reconcile_publication(connection, pipeline)
    return changes


def _reconcile_publication(connection: psycopg.Connection, pipeline: Pipeline) -> list[str]:
    conditions = {HEARTBEAT_TABLE: "", **{table: kept.where for table, kept in pipeline.tables.items()}}
    name = sql.Identifier(pipeline.publication)
    members = sql.SQL(", ").join(selection.publication_member(table, where) for table, where in sorted(conditions.items()))
    present = {
        f"{schema}.{table}": condition
        for schema, table, condition in connection.execute(
            "SELECT schemaname, tablename, rowfilter FROM pg_publication_tables WHERE pubname = %s", (pipeline.publication,)
        )
    }
    if present == {table: selection.row_filter(connection, table, where) for table, where in conditions.items()}:
        return []
    if connection.execute("SELECT 1 FROM pg_publication WHERE pubname = %s", (pipeline.publication,)).fetchone():
        connection.execute(sql.SQL("ALTER PUBLICATION {} SET TABLE {}").format(name, members))
        return [f"set the tables of publication {pipeline.publication}"]
    connection.execute(
        sql.SQL("CREATE PUBLICATION {} FOR TABLE {} WITH (publish_via_partition_root = true)").format(name, members)
    )
    return [f"made publication {pipeline.publication}"]


def check_slot(connection: psycopg.Connection, pipeline: Pipeline, captured: bool) -> None:
    """Raises :class:`PipelineError` when the slot cannot be used, or is gone although changes were ``captured`` from it.

    Debezium makes the slot and reads the tables in the snapshot that comes with it: one begins where the other ends.
    """
    row = connection.execute(
        "SELECT plugin, database, failover, wal_status, invalidation_reason FROM pg_replication_slots WHERE slot_name = %s",
        (pipeline.slot,),
    ).fetchone()
    if row is None:
        if captured:
            raise PipelineError(
                [
                    f"slot {pipeline.slot} is gone, and with it the changes since connector {pipeline.connector} read from it; "
                    "give the pipeline another source name, so that the source is captured anew"
                ]
            )
        return
    plugin, database, failover, wal_status, reason = row
    here = connection.info.dbname
    if plugin != "pgoutput" or database != here:
        raise PipelineError(
            [
                f"slot {pipeline.slot} belongs to plugin {plugin} in database {database}; "
                f"drop it or rename source {pipeline.source}"
            ]
        )
    if wal_status == "lost":
        raise PipelineError(
            [
                f"slot {pipeline.slot} lost its WAL ({reason}), and with it changes; drop it and give the pipeline another "
                "source name, so that the source is captured anew"
            ]
        )
    if not failover:
        raise PipelineError([f"slot {pipeline.slot} does not survive a failover; drop it while the connector is stopped"])
