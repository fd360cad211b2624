"""The table of types, the names that follow from PostgreSQL's, and what the connector is told of both."""

from __future__ import annotations

import pytest

from include.cdc.connector import settings_of
from include.cdc.jobs import TableJob, mirror_statement
from include.cdc.pipelines import Pipeline
from include.cdc.source import Column, SourceTable
from include.cdc.tables import iceberg_schema
from include.cdc.types import ARRAYS, REFUSED, TYPE_NAMES, UnsupportedType, carried, carried_as_text
from include.cdc.types_page import ENGINES, page
from include.platform.endpoints import Endpoint
from include.platform.settings import ROOT


def pipeline(*tables: str) -> Pipeline:
    return Pipeline.model_validate({"source": "shop", "connection": "shop_db", "tables": {table: {} for table in tables}})


def column(name: str, type_name: str = "text") -> Column:
    return Column(name, type_name, True, carried(type_name))


def test_the_page_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "types.md").read_text() == page(), "write it anew: python -m include.cdc.types > docs/types.md"


def test_every_type_has_names_in_all_engines() -> None:
    for name in TYPE_NAMES:
        assert f"`{name}`" in page() or name in ("enum", "bpchar", "varchar", "char", "bit")
        iceberg = str(carried(name).iceberg())
        assert iceberg in ENGINES or iceberg.startswith("decimal"), name
    for name in ARRAYS:
        assert str(carried(name, 10, 2, array=True).iceberg()).startswith("list<")


@pytest.mark.parametrize(
    ("precision", "scale", "iceberg"),
    [
        (10, 2, "decimal(10, 2)"),
        (38, 38, "string"),
        (38, 37, "decimal(38, 37)"),
        (39, 0, "string"),
        (None, None, "string"),
        (5, -2, "decimal(7, 0)"),
        (3, 5, "decimal(6, 5)"),
        (5, 5, "decimal(6, 5)"),
        (37, -2, "string"),
    ],
)
def test_numeric(precision: int | None, scale: int | None, iceberg: str) -> None:
    assert str(carried("numeric", precision, scale).iceberg()) == iceberg


@pytest.mark.parametrize("name", [*REFUSED, "geometry", "varbit[]", "interval[]"])
def test_refused_by_name(name: str) -> None:
    with pytest.raises(UnsupportedType, match=r"cannot be carried.*exclude the column"):
        carried(name.removesuffix("[]"), array=name.endswith("[]"))


@pytest.mark.parametrize(("name", "array"), [("int4", False), ("bytea", False), ("date", True), ("varbit", False)])
def test_kept_as_text_only_where_it_helps(name: str, array: bool) -> None:
    with pytest.raises(UnsupportedType, match="cannot be kept as text"):
        carried_as_text(name, array)


@pytest.mark.parametrize(
    ("name", "field", "lake"),
    [
        ("id", "id", "id"),
        ("Order Id", "Order_Id", "order_id"),
        ("1st", "_1st", "_1st"),
        ("größe", "gr__e", "gr__e"),
        ("a.b-c", "a_b_c", "a_b_c"),
        ("🛫x", "__x", "__x"),
        ("select", "select", "select"),
    ],
)
def test_names_of_columns(name: str, field: str, lake: str) -> None:
    assert (column(name).field, column(name).lake_name) == (field, lake)


def test_names_of_tables() -> None:
    odd = pipeline('Odd-Schema.Größe, "x" 🛫')
    (name,) = odd.tables
    assert odd.topic(name) == "shop.Odd-Schema.Gr__e___x____"
    assert odd.iceberg_table(name) == "cdc_shop.odd_schema_gr__e___x___"


def test_what_the_connector_is_told() -> None:
    made = pipeline("public.Order Items", "public.plain")
    tables = [
        SourceTable("public.Order Items", (column("Id", "int4"), column('the "day"', "date")), ("Id",)),
        SourceTable("public.plain", (column("id", "int4"),), ("id",)),
    ]
    settings = settings_of(made, tables, Endpoint("shop_db", "postgres", "db", 5432), "http://registry", "/secrets", "")
    assert settings["table.include.list"] == r"(?-i)public\.Order\ Items,(?-i)public\.plain,(?-i)shudl\.heartbeat"
    assert settings["snapshot.select.statement.overrides"] == "public.Order Items"
    select = settings["snapshot.select.statement.overrides.public.Order Items"]
    assert select.startswith('SELECT "Id" AS "Id", CAST(CASE WHEN isfinite("the ""day""") THEN')
    assert select.endswith('AS "the ""day""" FROM "public"."Order Items"')


def test_the_mirror_of_odd_columns(tmp_path) -> None:
    table = SourceTable(
        "public.t",
        (Column("Id", "int4", False, carried("int4")), Column("tags", "text[]", True, carried("text", array=True))),
        ("Id",),
    )
    schema = iceberg_schema(table)
    assert [field.name for field in schema.fields] == ["id", "tags", "_lsn", "_committed_at"]
    assert schema.identifier_field_names() == {"id"}
    statement = mirror_statement(TableJob(pipeline("public.t"), table, "0" * 32, tmp_path))
    assert "SELECT `Id` AS `id`, `tags` AS `tags`" in statement
