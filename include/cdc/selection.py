"""Which columns and rows of a table are captured, and of which columns only a hash leaves the source.

A mask is SHA-256 of the platform's salt and the value, in hexadecimal: equal values have equal masks, NULL stays NULL.
Debezium makes it before a change is written to Kafka; for the proof PostgreSQL makes the same, with the salt in its
session's setting :data:`SALT_SETTING`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from include.cdc.pipelines import Pipeline, PipelineError, Table
from include.platform.endpoints import Endpoints

if TYPE_CHECKING:
    from include.cdc.types import Carried

MASK_LENGTH = 64
"""Characters of a mask; Debezium cuts it to the length of the column."""
SALT_SETTING = "shudl.mask_salt"
SALT_EXTRA = "mask_secret"
"""Where the connection ``shudl_connect`` has the salt in its extra."""

_OVERRIDES = "snapshot.select.statement.overrides"


def captured(kept: Table, column: str) -> bool:
    """Whether the column leaves the source."""
    return column in kept.columns if kept.columns else column not in kept.exclude


def masked(carried: Carried) -> Carried:
    """How a text column travels as its mask."""
    salted = f"current_setting('{SALT_SETTING}') || CAST({{c}} AS text)"
    return replace(carried, postgres_text=f"encode(sha256(convert_to({salted}, 'UTF8')), 'hex')", free_text=False)


def mask_salt(pipeline: Pipeline, endpoints: Endpoints) -> str:
    """The salt of this platform's masks; empty for a pipeline that has none. Raises :class:`PipelineError`."""
    if not any(kept.mask for kept in pipeline.tables.values()):
        return ""
    salt = str(endpoints["shudl_connect"].extra.get(SALT_EXTRA, ""))
    if not re.fullmatch(r"[A-Za-z0-9]{16,}", salt):
        raise PipelineError(
            [f"connection shudl_connect: give its extra a {SALT_EXTRA}, 16 or more letters and digits, which salts the masks"]
        )
    return salt


def problems(
    connection: psycopg.Connection, name: str, kept: Table, columns: Sequence[tuple[str, str]], key: Sequence[str]
) -> list[str]:
    """What is wrong with what the pipeline file wants of table ``name``; ``columns``: the source's, as (name, type)."""
    types = dict(columns)
    found: list[str] = []
    if not key and kept.mirrored:
        found.append(f"has no primary key, which mode {kept.mode} needs; use mode: changelog, or add a key")
    if kept.serve and not kept.mirrored:
        found.append("serve copies the mirror, which mode changelog does not make; use mode: both, or remove serve")
    if kept.columns and kept.exclude:
        found.append("columns and exclude are both given; give one of them")
    for what in ("columns", "exclude", "mask"):
        found += [
            f"{what} names {column}, which is no column of it; it has {', '.join(types)}"
            for column in getattr(kept, what)
            if column not in types
        ]
    found += [
        f"column {column} belongs to the primary key and cannot be left out" for column in key if not captured(kept, column)
    ]
    if not any(captured(kept, column) for column in types):
        found.append("no column of it is captured")
    lengths = _lengths(connection, name)
    for column in kept.mask:
        if column not in types:
            continue
        if not captured(kept, column):
            found.append(f"mask names {column}, which is not captured; remove it from mask")
        elif column in key:
            found.append(f"column {column} belongs to the primary key and cannot be masked")
        elif types[column] not in ("text", "varchar"):
            found.append(f"column {column} of type {types[column]} cannot be masked, only text and varchar can; exclude it")
        elif lengths[column] is not None and lengths[column] < MASK_LENGTH:
            found.append(
                f"column {column} holds {lengths[column]} characters, a mask has {MASK_LENGTH}; make it text, or exclude it"
            )
    if kept.where:
        found += _condition_problems(connection, name, kept.where)
    return found


def _lengths(connection: psycopg.Connection, name: str) -> dict[str, int | None]:
    """The declared length of each column of type varchar."""
    return dict(
        connection.execute(
            "SELECT attname, CASE WHEN atttypid = 'varchar'::regtype AND atttypmod > 0 THEN atttypmod - 4 END "
            "FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0",
            (_identifier(name).as_string(connection),),
        ).fetchall()
    )


def _identifier(name: str) -> sql.Identifier:
    return sql.Identifier(*name.split("."))


def _condition_problems(connection: psycopg.Connection, name: str, where: str) -> list[str]:
    """Asks PostgreSQL whether the condition can be one, of a query as of a publication."""
    query = sql.SQL("SELECT 1 FROM {} WHERE ({}\n) LIMIT 0").format(_identifier(name), sql.SQL(where))
    try:
        connection.execute(query, prepare=True)
        row_filter(connection, name, where)
    except psycopg.Error as error:
        return [f"where: {where}: {error.diag.message_primary or error}; correct the condition"]
    return []


def publication_member(name: str, where: str) -> sql.Composable:
    """The table as a statement about a publication names it."""
    if not where:
        return _identifier(name)
    return sql.SQL("{} WHERE ({}\n)").format(_identifier(name), sql.SQL(where))


def row_filter(connection: psycopg.Connection, name: str, where: str) -> str | None:
    """The condition as PostgreSQL writes it down in a publication. Changes nothing. Raises psycopg.Error."""
    if not where:
        return None
    publication = f"shudl_check_{connection.info.backend_pid}"
    make = sql.SQL("CREATE PUBLICATION {} FOR TABLE {}").format(sql.Identifier(publication), publication_member(name, where))
    with connection.transaction(force_rollback=True):
        connection.execute(make, prepare=True)
        return connection.execute("SELECT rowfilter FROM pg_publication_tables WHERE pubname = %s", (publication,)).fetchone()[0]


def regex(name: str) -> str:
    """A pattern that matches the name alone, as Debezium takes it in a list."""
    return re.escape(name).replace(",", r"\,")


def connector_settings(pipeline: Pipeline, salt: str) -> dict[str, str]:
    """Debezium's settings of the selection. What ``columns`` does not name stays in the source, also when it is added later."""
    left_out: list[str] = []
    hashed: list[str] = []
    conditions: dict[str, str] = {}
    for name, kept in sorted(pipeline.tables.items()):
        if kept.columns:
            left_out.append(_columns_regex(name, f"(?!(?:{'|'.join(map(regex, kept.columns))})$).+"))
        if kept.exclude:
            left_out.append(_columns_regex(name, f"(?:{'|'.join(map(regex, kept.exclude))})"))
        if kept.mask:
            hashed.append(_columns_regex(name, f"(?:{'|'.join(map(regex, kept.mask))})"))
        if kept.where:
            schema, table = name.split(".")
            conditions[name] = f"SELECT * FROM {_quoted(schema)}.{_quoted(table)} WHERE ({kept.where}\n)"
    settings: dict[str, str] = {}
    if left_out:
        settings["column.exclude.list"] = ",".join(left_out)
    if hashed:
        settings[f"column.mask.hash.v2.SHA-256.with.salt.{salt}"] = ",".join(hashed)
    if conditions:
        settings[_OVERRIDES] = ",".join(conditions)
        settings |= {f"{_OVERRIDES}.{name}": statement for name, statement in conditions.items()}
    return settings


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _columns_regex(table: str, columns: str) -> str:
    """Debezium's patterns do not mind case unless told to."""
    return rf"(?-i){regex(table)}\.{columns}"


def changed(pipeline: Pipeline, present: dict[str, str], salt: str) -> list[str]:
    """The tables whose selection is not that of the connector's ``present`` settings, which captured them already."""
    wanted = connector_settings(pipeline, salt)
    captured_already = set(present.get("table.include.list", "").split(","))
    return [
        name
        for name in sorted(pipeline.tables)
        if regex(name) in captured_already and _selection(wanted, name) != _selection(present, name)
    ]


def _selection(settings: dict[str, str], table: str) -> set[tuple[str, str]]:
    """What the settings say of one table's columns and rows."""
    own = _columns_regex(table, "")
    found = {
        (key, pattern)
        for key, value in settings.items()
        if key.startswith(("column.exclude.list", "column.mask.hash."))
        for pattern in re.split(r",(?=\(\?-i\))", value)
        if pattern.startswith(own)
    }
    condition = settings.get(f"{_OVERRIDES}.{table}")
    return found | ({(_OVERRIDES, condition)} if condition else set())
