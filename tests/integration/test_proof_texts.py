"""The same values have the same canonical text, and so the same hashes, in PostgreSQL, Trino and ClickHouse."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from include.cdc.source import Column, SourceTable
from include.cdc.types import TYPE_NAMES, carried
from include.proof import stores
from include.proof.dialects import CLICKHOUSE, TRINO
from include.proof.stores import Store
from tests.live import Platform, flights_pipeline

TIMES = (
    *("0001-01-01 00:00:00.000001", "1582-10-10 12:00:00.5", "1899-12-31 23:59:59.999999", "1969-12-31 23:59:59.999999"),
    *("1970-01-01 00:00:00", "2013-12-25 06:00:00.123456", "2013-12-25 06:00:00.1", "9999-12-31 23:59:59.999999"),
)
TEXTS = (
    *("", " ", "~N", "~", "~~0", "|", "a|b", "||", "\\", "\\N", "'", '"', "`", "%s {c}", "a\nb\r\t", "null"),
    *("é", "e\u0301", "ß🛫", "\u200b", "x" * 9000),
)


@dataclass(frozen=True)
class Case:
    """Values of one PostgreSQL type: the type's name in each engine, and its values as text that each can cast."""

    postgres: str
    trino: str
    clickhouse: str
    values: tuple[str, ...]
    lake_values: tuple[str, ...] = ()
    """As the lake has them, where that is not how PostgreSQL reads them."""
    precision: int | None = None
    scale: int | None = None


def numeric(precision: int, scale: int, *values: str) -> Case:
    name = f"({precision}, {scale})"
    return Case(f"numeric{name}", f"decimal{name}", f"Decimal{name}", values, (), precision, scale)


FLOATS = ("0", "-0", "NaN", "Infinity", "-Infinity", "0.1", "-1.5")
JSON = ('{"a": 1, "b": [null, "x|~"], "ü": 1.10}', "null", '""', "[]")
CASES: dict[str, list[Case]] = {
    "int2": [Case("int2", "integer", "Int32", ("-32768", "-1", "0", "32767"))],
    "int4": [Case("int4", "integer", "Int32", ("-2147483648", "-1", "0", "2147483647"))],
    "int8": [Case("int8", "bigint", "Int64", ("-9223372036854775808", "-1", "0", "9223372036854775807"))],
    "oid": [Case("oid", "bigint", "Int64", ("0", "4294967295"))],
    "money": [replace(numeric(19, 2, "-92233720368547758.08", "0.00", "-0.05", "1234.50"), postgres="money")],
    "bool": [Case("bool", "boolean", "Bool", ("true", "false"))],
    "float4": [Case("float4", "real", "Float32", (*FLOATS, "3.4028235e38", "1.4e-45", "16777217"))],
    "float8": [Case("float8", "double", "Float64", (*FLOATS, "1.7976931348623157e308", "5e-324", "9007199254740993"))],
    "text": [Case("text", "varchar", "String", TEXTS)],
    "varchar": [Case("varchar", "varchar", "String", TEXTS)],
    "bpchar": [Case("char(4)", "varchar", "String", ("", "a", "a|b", "é", "abcd"), ("    ", "a   ", "a|b ", "é   ", "abcd"))],
    "uuid": [Case("uuid", "varchar", "String", ("00000000-0000-0000-0000-000000000000", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"))],
    "json": [Case("json", "varchar", "String", (*JSON, '{ "b":1,"a":1,  "a":2 }'))],
    "jsonb": [Case("jsonb", "varchar", "String", JSON)],
    "date": [Case("date", "date", "Date32", ("0001-01-01", "1582-10-10", "1899-12-31", "2000-02-29", "9999-12-31"))],
    "timestamp": [Case("timestamp", "timestamp(6)", "DateTime64(6)", TIMES)],
    "timestamptz": [
        Case("timestamptz", "timestamp(6) with time zone", "DateTime64(6, 'UTC')", TIMES),
        Case(
            "timestamptz",
            "timestamp(6) with time zone",
            "DateTime64(6, 'Europe/Berlin')",
            ("2013-10-27 02:30:00+02", "2013-10-27 02:30:00+01", "1969-12-31 19:00:00.000001-05"),
            ("2013-10-27 00:30:00", "2013-10-27 01:30:00", "1970-01-01 00:00:00.000001"),
        ),
    ],
    "numeric": [
        numeric(5, 2, "0", "-0.05", "0.5", "1.10", "-999.99", "999.99"),
        numeric(5, 0, "0", "-1", "99999"),
        numeric(5, 5, "0", "-0.00001", "0.99999"),
        numeric(38, 10, "-9999999999999999999999999999.9999999999", "0.0000000001", "1"),
        numeric(38, 0, "-99999999999999999999999999999999999999", "12345678901234567890123456789012345678"),
    ],
}
"""The types whose text each engine writes in its own way; the other types are text in the lake."""

UNCARRIED = {
    "date": ("date", ("infinity", "-infinity", "0044-03-15 BC")),
    "timestamp": ("timestamp", ("infinity", "-infinity", "0044-03-15 12:00:00 BC")),
    "timestamptz": ("timestamptz", ("infinity", "-infinity", "0044-03-15 12:00:00+00 BC")),
    "numeric": ("numeric(5, 2)", ("NaN",)),
}
"""Values of PostgreSQL that the lake cannot hold."""


@pytest.fixture(scope="module")
def engines(platform: Platform) -> dict[str, Store]:
    pipeline, endpoints = flights_pipeline(), platform.endpoints
    return {
        "postgres": stores.postgres(pipeline, endpoints, 60),
        "trino": stores.iceberg(pipeline, endpoints, 60),
        "clickhouse": stores.served(pipeline, endpoints, 60),
    }


def table_of(name: str, case: Case) -> SourceTable:
    made = carried(name, case.precision, case.scale)
    return SourceTable("values", (Column("id", "int8", False, carried("int8")), Column("v", name, True, made)), ("id",))


def relation_of(engine: str, case: Case) -> str:
    """A query of the case's values, numbered from 1, with NULL as number 0."""
    kind, number = {
        "postgres": (case.postgres, "int8"),
        "trino": (case.trino, "bigint"),
        "clickhouse": (f"Nullable({case.clickhouse})", "Int64"),
    }[engine]
    values = case.values if engine == "postgres" else case.lake_values or case.values
    literals = ["NULL", *map((CLICKHOUSE if engine == "clickhouse" else TRINO).literal, values)]
    if engine == "clickhouse" and "Berlin" in kind:
        literals[1:] = [f"toDateTime64({text}, 6, 'UTC')" for text in literals[1:]]
    rows = (f"SELECT CAST({n} AS {number}) AS id, CAST({value} AS {kind}) AS v" for n, value in enumerate(literals))
    return f"({' UNION ALL '.join(rows)}) t"


def texts(store: Store, table: SourceTable, relation: str) -> dict[int, str | None]:
    columns = ", ".join(store.dialect.text(column) for column in table.columns)
    return {int(number): text for number, text in store.query(f"SELECT {columns} FROM {relation}")}


def test_every_type_has_a_case() -> None:
    own = {name for name in TYPE_NAMES if carried(name, 5, 2).castable and not carried(name, 5, 2).free_text}
    assert own <= set(CASES) <= set(TYPE_NAMES)


@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name, cases in CASES.items() for case in cases], ids=lambda p: getattr(p, "clickhouse", p)
)
def test_canonical_text_is_the_same_in_every_engine(engines: dict[str, Store], name: str, case: Case) -> None:
    table = table_of(name, case)
    found = {engine: texts(store, table, relation_of(engine, case)) for engine, store in engines.items()}
    expected = found["postgres"]
    assert len(expected) == len(case.values) + 1
    assert [number for number, text in expected.items() if text is None] == [0], "NULL is NULL, and nothing else is"
    assert len(set(expected.values())) == len(expected), "different values, different texts"
    if not table.columns[1].carried.free_text:
        assert not any(set("|~") & set(text) for text in expected.values() if text), "only free text may need escapes"
    assert found["trino"] == expected
    assert found["clickhouse"] == expected


@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name, cases in CASES.items() for case in cases], ids=lambda p: getattr(p, "clickhouse", p)
)
def test_hashes_are_the_same_in_every_engine(engines: dict[str, Store], name: str, case: Case) -> None:
    table = table_of(name, case)
    found = {
        engine: {tuple(map(int, row)) for row in store.query(store.dialect.buckets(table, relation_of(engine, case), 4))}
        for engine, store in engines.items()
    }
    assert sum(rows for _, rows, _, _ in found["postgres"]) == len(case.values) + 1
    assert found["trino"] == found["postgres"]
    assert found["clickhouse"] == found["postgres"]


@pytest.mark.parametrize("engine", ["postgres", "trino", "clickhouse"])
def test_no_two_rows_share_a_hash(engines: dict[str, Store], engine: str) -> None:
    """Two text columns: separators, escapes and NULLs in them never make two rows look the same."""
    store = engines[engine]
    kind = {"postgres": "text", "trino": "varchar", "clickhouse": "Nullable(String)"}[engine]
    literals = ["NULL", *map(store.dialect.literal, ("", "~N", "~", "|", "~1", "a|b", "a"))]
    pairs = [f"SELECT CAST({a} AS {kind}) AS a, CAST({b} AS {kind}) AS b" for a in literals for b in literals]
    table = SourceTable("values", tuple(Column(name, "text", True, carried("text")) for name in ("a", "b")), ("a", "b"))
    listed = list(store.query(store.dialect.listing(table, f"({' UNION ALL '.join(pairs)}) t", 1, [0])))
    assert len(listed) == len({value for _, _, value in listed}) == len(pairs)


@pytest.mark.parametrize("name", UNCARRIED)
def test_what_cannot_be_carried_equals_nothing_in_the_lake(engines: dict[str, Store], name: str) -> None:
    kind, values = UNCARRIED[name]
    column = Column("v", name, True, carried(name, 5, 2) if name == "numeric" else carried(name))
    relation = "(" + " UNION ALL ".join(f"SELECT CAST('{value}' AS {kind}) AS v" for value in values) + ") t"
    found = [text for (text,) in engines["postgres"].query(f"SELECT {engines['postgres'].dialect.text(column)} FROM {relation}")]
    assert len(set(found)) == len(values)
    for text in found:
        assert text in ("NaN", "infinity", "-infinity") or text.endswith(" BC")


KEYS = [name for name in CASES if name not in ("float4", "float8", "json")]
"""Types of keys: Iceberg has no floats among them, PostgreSQL no json."""


@pytest.mark.parametrize("name", KEYS)
def test_keys_find_their_rows(engines: dict[str, Store], name: str) -> None:
    """A canonical text, cast to the key's type, is the value again."""
    for case in CASES[name]:
        table = SourceTable("values", table_of(name, case).columns, ("v",))
        types = {"postgres": {"v": name}, "trino": {"v": case.trino}, "clickhouse": {}}
        for engine, store in engines.items():
            relation = relation_of(engine, case)
            keys = [(text,) for number, text in texts(store, table, relation).items() if number]
            dialect = replace(store.dialect, mark="NULL")
            rows = list(store.query(dialect.rows(table, relation, types[engine], keys)))
            assert len(rows) == len(keys), engine
            assert {text for _, text, _ in rows} == {text for (text,) in keys}, engine
