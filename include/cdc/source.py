"""The PostgreSQL side of a pipeline: what its tables look like, its publication, slot and heartbeat."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
from psycopg import sql

from include.cdc import selection
from include.cdc.pipelines import (
    BEFORE,
    COMMITTED_AT,
    HEADERS,
    HEARTBEAT_TABLE,
    LSN,
    OFFSET,
    OPERATION,
    PARTITION,
    TRANSACTION,
    Pipeline,
    PipelineError,
    close_to,
    underscored,
)
from include.cdc.types import Carried, UnsupportedType, carried, carried_as_text
from include.lake import RESERVED

ADDED = frozenset({LSN, COMMITTED_AT, OPERATION, TRANSACTION, PARTITION, OFFSET, BEFORE, HEADERS})
"""Names that ShuDL gives to columns of its own, in the lake or in Flink."""
GENERATED_SINCE = 180000
"""The first ``server_version_num`` that publishes stored generated columns."""


@dataclass(frozen=True)
class Column:
    """A captured column. ``type_name``: its type in PostgreSQL's SQL, the base type of a domain."""

    name: str
    type_name: str
    nullable: bool
    carried: Carried

    @property
    def field(self) -> str:
        """Its name in Avro, as Debezium makes it."""
        name = underscored(self.name, "A-Za-z0-9_")
        return f"_{name}" if name[0].isdigit() else name

    @property
    def lake_name(self) -> str:
        """Its name in the lake: lower case, since Trino knows no other."""
        return self.field.lower()


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
WITH RECURSIVE based AS (
    SELECT attnum, attname, NOT attnotnull AS nullable, atttypid AS type, atttypmod AS typmod, attndims::int AS dimensions
    FROM pg_attribute
    WHERE attrelid = to_regclass(%(table)s) AND attnum > 0 AND NOT attisdropped AND attgenerated::text = ANY (%(generated)s)
    UNION ALL
    SELECT attnum, attname, nullable, typbasetype, typtypmod, typndims
    FROM based JOIN pg_type ON oid = type WHERE typtype = 'd'
)
SELECT attname, format_type(t.oid, -1), nullable, e.oid IS NOT NULL, dimensions,
       CASE WHEN kind.typtype = 'e' THEN 'enum' WHEN kind.typtype = 'c' THEN 'composite' WHEN kind.typtype = 'd' THEN 'domain'
            ELSE kind.typname END,
       CASE WHEN typmod < 0 THEN NULL WHEN kind.typname = 'numeric' THEN ((typmod - 4) >> 16) & 65535
            WHEN kind.typname = 'bit' THEN typmod END,
       CASE WHEN typmod >= 0 AND kind.typname = 'numeric' THEN ((typmod - 4) & 2047 # 1024) - 1024 END
FROM based
JOIN pg_type t ON t.oid = type AND t.typtype <> 'd'
LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typarray = 0 AND t.typlen = -1
JOIN pg_type kind ON kind.oid = coalesce(e.oid, t.oid)
ORDER BY attnum
"""
_KEY = """
SELECT a.attname FROM pg_index i
CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, position)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indrelid = to_regclass(%s) AND i.indisprimary ORDER BY k.position
"""


_VIRTUAL = "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%(table)s) AND attgenerated = 'v' AND NOT attisdropped"
_WITHOUT_IDENTITY = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relreplident <> 'f' AND (
    c.oid = to_regclass(%(table)s)
    OR c.oid IN (SELECT relid FROM pg_partition_tree(to_regclass(%(table)s))))
ORDER BY 1, 2
"""


def quoted(table: str) -> str:
    """``schema.table`` as PostgreSQL writes it, for ``to_regclass``."""
    return ".".join(map(quoted_name, table.split(".")))


def quoted_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def describe(connection: psycopg.Connection, pipeline: Pipeline) -> list[SourceTable]:
    """The pipeline's tables as they are in the source, with the columns that are captured.

    ``connection`` must be in autocommit mode. Raises :class:`PipelineError` with all problems.
    """
    problems: list[str] = []
    tables: list[SourceTable] = []
    generated = ["", "s"] if connection.info.server_version >= GENERATED_SINCE else [""]
    refused = _refused(connection, pipeline)
    for name, kept in pipeline.tables.items():
        here = pipeline.at("tables", name)
        if name in refused:
            problems.append(f"{here}: {refused[name]}")
            continue
        rows = connection.execute(_COLUMNS, {"table": quoted(name), "generated": generated}).fetchall()
        key = tuple(row[0] for row in connection.execute(_KEY, (quoted(name),)))
        types = [(row[0], f"{row[5]}[]" if row[3] else row[5]) for row in rows]
        found = selection.problems(connection, name, kept, types, key)
        columns: list[Column] = []
        found += [
            f"column {column} is generated and virtual; PostgreSQL would refuse every update of a table that is captured with "
            "such a column: make it STORED, or leave out the table"
            for (column,) in connection.execute(_VIRTUAL, {"table": quoted(name)})
        ]
        for column, sql_type, nullable, array, dimensions, type_name, precision, scale in rows:
            if not selection.captured(kept, column):
                continue
            try:
                if dimensions > 1:
                    raise UnsupportedType(f"type {sql_type} cannot be carried: the lake's arrays have one dimension; exclude it")
                if array and type_name == "bytea" and kept.logged:
                    raise UnsupportedType("type bytea[] cannot be in a changelog: Flink cannot cast it; exclude it")
                if type_name == "money":
                    _check_money(connection)
                how = carried_as_text(type_name, array) if column in kept.text else carried(type_name, precision, scale, array)
                columns.append(Column(column, sql_type, nullable, selection.masked(how) if column in kept.mask else how))
            except UnsupportedType as error:
                found.append(f"column {column}: {error}")
        found += _clashes(columns)
        found += [
            f"column {column.name}: type {column.type_name} cannot be in an Iceberg table's key; "
            "give the table a primary key without it, or use mode: changelog"
            for column in columns
            if kept.mirrored and column.name in key and not column.carried.key
        ]
        problems += [f"{here}: {problem}" for problem in found]
        tables.append(SourceTable(name, tuple(columns), key))
    if problems:
        raise PipelineError(problems)
    return tables


def _clashes(columns: list[Column]) -> Iterator[str]:
    """What is wrong with the names that the columns would have in the lake."""
    first: dict[str, str] = {}
    for column in columns:
        if column.lake_name in RESERVED:
            yield f"column {column.name}: {column.lake_name} is a name of Iceberg's own; rename it or exclude it"
        elif column.lake_name in ADDED:
            yield f"column {column.name}: ShuDL adds a column {column.lake_name} of its own; rename it or exclude it"
        elif column.lake_name in first:
            yield (
                f"columns {first[column.lake_name]} and {column.name}: both would be {column.lake_name} in the lake; "
                "exclude one of them"
            )
        first.setdefault(column.lake_name, column.name)


def _check_money(connection: psycopg.Connection) -> None:
    (text,) = connection.execute("SELECT CAST(CAST(-1234.5 AS numeric) AS money)::text").fetchone()
    if text != "-$1,234.50":
        (locale,) = connection.execute("SHOW lc_monetary").fetchone()
        raise UnsupportedType(
            f"type money cannot be carried with lc_monetary = {locale}, under which -1234.5 is {text}; "
            "set the database's lc_monetary to C, or exclude the column"
        )


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
    for name in (HEARTBEAT_TABLE, *(table.name for table in tables)):
        for schema_name, part in connection.execute(_WITHOUT_IDENTITY, {"table": quoted(name)}).fetchall():
            connection.execute(sql.SQL("ALTER TABLE {} REPLICA IDENTITY FULL").format(sql.Identifier(schema_name, part)))
            changes.append(f"set REPLICA IDENTITY FULL on {schema_name}.{part}")
    changes += _reconcile_publication(connection, pipeline)
    return changes


def _reconcile_publication(connection: psycopg.Connection, pipeline: Pipeline) -> list[str]:
    conditions = {HEARTBEAT_TABLE: "", **{table: kept.where for table, kept in pipeline.tables.items()}}
    name = sql.Identifier(pipeline.publication)
    members = sql.SQL(", ").join(selection.publication_member(table, where) for table, where in sorted(conditions.items()))
    generated = connection.info.server_version >= GENERATED_SINCE
    options = sql.SQL("publish_via_partition_root = true" + (", publish_generated_columns = stored" if generated else ""))
    present = {
        f"{schema}.{table}": condition
        for schema, table, condition in connection.execute(
            "SELECT schemaname, tablename, rowfilter FROM pg_publication_tables WHERE pubname = %s", (pipeline.publication,)
        )
    }
    publication = connection.execute(
        "SELECT pubviaroot AND (NOT %s OR to_jsonb(p)->>'pubgencols' = 's') FROM pg_publication p WHERE pubname = %s",
        (generated, pipeline.publication),
    ).fetchone()
    if publication is None:
        connection.execute(sql.SQL("CREATE PUBLICATION {} FOR TABLE {} WITH ({})").format(name, members, options))
        return [f"made publication {pipeline.publication}"]
    changes = []
    if publication != (True,):
        connection.execute(sql.SQL("ALTER PUBLICATION {} SET ({})").format(name, options))
        changes.append(f"set the options of publication {pipeline.publication}")
    if present != {table: selection.row_filter(connection, table, where) for table, where in conditions.items()}:
        connection.execute(sql.SQL("ALTER PUBLICATION {} SET TABLE {}").format(name, members))
        changes.append(f"set the tables of publication {pipeline.publication}")
    return changes
