"""What Debezium and Flink are told of selected columns and rows, masks and changelogs."""

from __future__ import annotations

import re
from typing import Any

import pytest

from include.cdc import selection
from include.cdc.changelog import insert_statement, source_table
from include.cdc.pipelines import Pipeline, PipelineError, Table
from include.cdc.source import Column, SourceTable
from include.cdc.tables import changelog_schema
from include.cdc.types import carried
from include.lake import RESERVED
from include.platform.endpoints import Endpoint

SALT = "0123456789abcdef"
COLUMNS = (Column("id", "int8", False, carried("int8")), Column("at", "timestamptz", True, carried("timestamptz")))
KEYED, KEYLESS = SourceTable("public.t", COLUMNS, ("id",)), SourceTable("public.t", COLUMNS, ())


def pipeline(**tables: dict[str, Any]) -> Pipeline:
    return Pipeline.model_validate(
        {"source": "s", "connection": "c", "tables": {f"public.{name}": kept for name, kept in tables.items()}}
    )


def settings(**tables: dict[str, Any]) -> dict[str, str]:
    return selection.connector_settings(pipeline(**tables), SALT)


def left_out(listed: str, column: str) -> bool:
    """Whether a list of Debezium's names the column."""
    return any(re.fullmatch(part.removeprefix("(?-i)"), column) for part in listed.split(",(?-i)"))


def test_a_whole_table_needs_no_settings() -> None:
    assert settings(t={}) == {}


def test_only_the_columns_named_are_captured_also_of_those_added_later() -> None:
    listed = settings(t={"columns": ["id", "na.me"]}, u={})["column.exclude.list"]
    names = ("public.t.id", "public.t.na.me", "public.t.naXme", "public.t.ID", "public.t.id2", "public.u.x", "public.tt.x")
    assert [name for name in names if left_out(listed, name)] == ["public.t.naXme", "public.t.ID", "public.t.id2"]


def test_the_columns_left_out_are_these_alone() -> None:
    listed = settings(t={"exclude": ["a", "b$"]}, u={"columns": ["a"]})["column.exclude.list"]
    names = ("public.t.a", "public.t.b$", "public.t.A", "public.t.ab", "public.u.a", "public.u.b")
    assert [name for name in names if left_out(listed, name)] == ["public.t.a", "public.t.b$", "public.u.b"]


def test_masks_are_salted() -> None:
    found = settings(t={"mask": ["email"]}, u={"mask": ["phone"]})
    (name,) = found
    assert name == f"column.mask.hash.v2.SHA-256.with.salt.{SALT}"
    assert left_out(found[name], "public.t.email") and left_out(found[name], "public.u.phone")
    assert not left_out(found[name], "public.u.email")


def test_the_first_snapshot_has_the_condition() -> None:
    found = settings(t={"where": "a = 'x' -- of all"}, u={"where": "b > 1"})
    assert found["snapshot.select.statement.overrides"] == "public.t,public.u"
    assert found["snapshot.select.statement.overrides.public.t"] == """SELECT * FROM "public"."t" WHERE (a = 'x' -- of all\n)"""


@pytest.mark.parametrize("salt", ["", "short", "0123456789abcde,", None])
def test_a_salt_that_cannot_be_one_is_refused(salt: str | None) -> None:
    extra = {} if salt is None else {selection.SALT_EXTRA: salt}
    endpoints = {"shudl_connect": Endpoint("shudl_connect", "http", "h", 1, extra=extra)}
    assert selection.mask_salt(pipeline(t={}), endpoints) == ""
    with pytest.raises(PipelineError, match="connection shudl_connect: give its extra a mask_secret"):
        selection.mask_salt(pipeline(t={"mask": ["email"]}), endpoints)


BEFORE: dict[str, dict[str, Any]] = {
    "t": {"exclude": ["a"], "mask": ["b"], "where": "c > 0"},
    "u": {"columns": ["a", "b"]},
    "v": {},
}


@pytest.mark.parametrize(
    ("after", "changed"),
    [
        (BEFORE, []),
        ({**BEFORE, "w": {"exclude": ["a"], "mask": ["b"], "where": "c > 0"}}, []),
        ({"u": BEFORE["u"], "v": {}}, []),
        ({**BEFORE, "t": {**BEFORE["t"], "mode": "both"}}, []),
        ({**BEFORE, "t": {**BEFORE["t"], "exclude": ["a", "d"]}}, ["public.t"]),
        ({**BEFORE, "t": {**BEFORE["t"], "mask": []}}, ["public.t"]),
        ({**BEFORE, "t": {**BEFORE["t"], "where": ""}}, ["public.t"]),
        ({**BEFORE, "u": {"exclude": ["a"]}, "v": {"mask": ["b"]}}, ["public.u", "public.v"]),
    ],
)
def test_a_selection_that_has_changed_is_seen(after: dict[str, dict[str, Any]], changed: list[str]) -> None:
    tables = ",".join(selection.table_regex(f"public.{name}") for name in BEFORE)
    present = {"table.include.list": tables, **settings(**BEFORE)}
    assert selection.changed(pipeline(**after), present, SALT) == changed


def test_another_salt_changes_every_mask() -> None:
    present = {"table.include.list": ",".join(map(selection.table_regex, ("public.t", "public.v"))), **settings(**BEFORE)}
    assert selection.changed(pipeline(**BEFORE), present, SALT[::-1]) == ["public.t"]


def test_captured() -> None:
    assert [selection.captured(Table(columns=("a",)), name) for name in "ab"] == [True, False]
    assert [selection.captured(Table(exclude=("a",)), name) for name in "ab"] == [False, True]
    assert selection.captured(Table(), "a")


@pytest.mark.parametrize("table", [KEYED, KEYLESS])
def test_schema_of_a_changelog(table: SourceTable) -> None:
    schema = changelog_schema(table)
    names = [field.name for field in schema.fields]
    before = ["_before"] if table is KEYLESS else []
    assert names == ["id", "at", "_op", "_lsn", "_tx_id", "_committed_at", "_kafka_partition", "_kafka_offset", *before]
    assert [field.field_id for field in schema.fields] == list(range(1, len(names) + 1))
    assert not set(names) & set(RESERVED), "Spark reads no such table"
    assert not any(field.required for field in schema.fields) and not schema.identifier_field_ids
    if table is KEYLESS:
        assert [(f.field_id, f.name) for f in schema.find_field("_before").field_type.fields] == [(10, "id"), (11, "at")]


def test_statements_of_a_changelog() -> None:
    endpoints = {
        "shudl_kafka": Endpoint("shudl_kafka", "kafka", "h", 1, extra={"bootstrap.servers": "h:1"}),
        "shudl_registry": Endpoint("shudl_registry", "http", "h", 2),
    }
    source = source_table(pipeline(t={"mode": "changelog"}), KEYED, 42, endpoints)
    assert "`before` ROW<`id` BIGINT, `at` STRING>, `after` ROW<`id` BIGINT, `at` STRING>" in source
    assert "'scan.startup.mode' = 'specific-offsets', 'scan.startup.specific-offsets' = 'partition:0,offset:42'" in source
    assert "'properties.group.id' = 'cdc.s.t_changelog'" in source and "PRIMARY KEY" not in source
    keyed, keyless = (insert_statement(pipeline(t={"mode": "changelog"}), table, "'a' = 'b'") for table in (KEYED, KEYLESS))
    assert keyed.startswith("INSERT INTO lake.`cdc_s`.`t_changelog` /*+ OPTIONS('a' = 'b') */ SELECT `id` AS `id`, ")
    assert "CASE WHEN `op` = 'd' THEN `before`.`id` ELSE `after`.`id` END AS `id`" in keyed
    assert "_before" not in keyed
    assert "CASE WHEN `op` = 'u' THEN ROW(`before`.`id`, " in keyless and " END AS `_before`" in keyless
