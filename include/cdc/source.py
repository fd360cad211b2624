"""The PostgreSQL side of a pipeline: what its tables look like, its publication, slot and heartbeat."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

from include.cdc import selection
from include.cdc.pipelines import HEARTBEAT_TABLE, Pipeline, PipelineError, close_to
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
    refused = _refused(connection, pipeline)
    for name, kept in pipeline.tables.items():
        here = pipeline.at("tables", name)
        if name in refused:
            problems.append(f"{here}: {refused[name]}")
            continue
        rows = connection.execute(_COLUMNS, (quoted(name),)).fetchall()
        key = tuple(row[0] for row in connection.execute(_KEY, (quoted(name),)))
        found = selection.problems(connection, name, kept, [(row[0], row[1]) for row in rows], key)
        problems += [f"{here}: {problem}" for problem in found]
        columns: list[Column] = []
        for column, type_name, nullable, precision, scale in rows:
            if not selection.captured(kept, column):
                continue
            try:
                travels = carried(type_name, precision, scale)
                travels = selection.masked(travels) if column in kept.mask else travels
                columns.append(Column(column, type_name, nullable, travels))
            except UnsupportedType as error:
                problems.append(f"{here}: column {column}: {error}")
        tables.append(SourceTable(name, tuple(columns), key))
    if problems:
        raise PipelineError(problems)
    return tables


_RELATIONS = """
SELECT n.nspname || '.' || c.relname, c.relkind::text, c.relpersistence::text, has_schema_privilege(n.oid, 'USAGE')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
"""
_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}


def _refused(connection: psycopg.Connection, pipeline: Pipeline) -> dict[str, str]:
    """The pipeline's tables that cannot be captured whatever their columns are, and why."""
    known = {name: row for name, *row in connection.execute(_RELATIONS)}
    refused = {}
    for name in pipeline.tables:
        if name not in known:
            tables = [other for other, (kind, _, _) in known.items() if kind in "rp"]
            hint = close_to(name, tables) or "correct the name, or remove it"
            refused[name] = f"there is no such table in database {connection.info.dbname}; {hint}"
            continue
        kind, persistence, enters = known[name]
        if kind in _KINDS:
            refused[name] = f"is {_KINDS[kind]}, which has no changes of its own; name the tables below it"
        elif persistence != "p":
            refused[name] = f"is unlogged, so that its changes are not in the WAL; ALTER TABLE {quoted(name)} SET LOGGED"
        elif not enters:
            schema = name.partition(".")[0]
            refused[name] = f"role {connection.info.user} may not enter its schema; GRANT USAGE ON SCHEMA {schema}"
    return refused


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
