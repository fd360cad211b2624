"""The PostgreSQL side of a pipeline: what its tables look like, its publication, slot and heartbeat."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

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
    """One captured table: its columns in order and the names of its primary key."""

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
    """The pipeline's tables as they are in the source. Raises :class:`PipelineError` with all problems."""
    problems: list[str] = []
    tables: list[SourceTable] = []
    level, replication = connection.execute(
        "SELECT current_setting('wal_level'), (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user)"
    ).fetchone()
    if level != "logical":
        problems.append(f"source {pipeline.source}: wal_level is {level}; set wal_level = logical and restart PostgreSQL")
    if not replication:
        problems.append(f"source {pipeline.source}: the connection's role may not replicate; ALTER ROLE … REPLICATION")
    for name in pipeline.tables:
        rows = connection.execute(_COLUMNS, (quoted(name),)).fetchall()
        if not rows:
            problems.append(f"table {name}: does not exist in {pipeline.connection}, or the role may not see it")
            continue
        columns: list[Column] = []
        for column, type_name, nullable, precision, scale in rows:
            try:
                columns.append(Column(column, type_name, nullable, carried(type_name, precision, scale)))
            except UnsupportedType as error:
                problems.append(f"table {name}, column {column}: {error}")
        key = tuple(row[0] for row in connection.execute(_KEY, (quoted(name),)))
        if not key:
            problems.append(f"table {name}: has no primary key, which mode mirror needs; add one")
        tables.append(SourceTable(name, tuple(columns), key))
    if problems:
        raise PipelineError(problems)
    return tables


def reconcile_source(connection: psycopg.Connection, pipeline: Pipeline, tables: list[SourceTable]) -> list[str]:
    """Make heartbeat table, replica identities, publication and failover-ready slot match; return what changed.

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
    changes += _reconcile_publication(connection, pipeline, wanted)
    changes += _reconcile_slot(connection, pipeline)
    return changes


def _reconcile_publication(connection: psycopg.Connection, pipeline: Pipeline, wanted: dict[str, sql.Identifier]) -> list[str]:
    name = sql.Identifier(pipeline.publication)
    members = sql.SQL(", ").join(wanted[table] for table in sorted(wanted))
    present = {
        f"{schema}.{table}"
        for schema, table in connection.execute(
            "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = %s", (pipeline.publication,)
        )
    }
    if present == set(wanted):
        return []
    if connection.execute("SELECT 1 FROM pg_publication WHERE pubname = %s", (pipeline.publication,)).fetchone():
        connection.execute(sql.SQL("ALTER PUBLICATION {} SET TABLE {}").format(name, members))
        return [f"set the tables of publication {pipeline.publication}"]
    connection.execute(
        sql.SQL("CREATE PUBLICATION {} FOR TABLE {} WITH (publish_via_partition_root = true)").format(name, members)
    )
    return [f"made publication {pipeline.publication}"]


def _reconcile_slot(connection: psycopg.Connection, pipeline: Pipeline) -> list[str]:
    row = connection.execute(
        "SELECT plugin, database, failover, wal_status, invalidation_reason FROM pg_replication_slots WHERE slot_name = %s",
        (pipeline.slot,),
    ).fetchone()
    if row is None:
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput', false, false, true)", (pipeline.slot,))
        return [f"made slot {pipeline.slot}"]
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
            [f"slot {pipeline.slot} lost its WAL ({reason}); drop the slot and the connector, then the tables are snapshot anew"]
        )
    if not failover:
        raise PipelineError([f"slot {pipeline.slot} does not survive a failover; drop it while the connector is stopped"])
    return []
