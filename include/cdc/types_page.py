"""``docs/types.md``, written from the table of types."""

from __future__ import annotations

import re

from include.cdc.connector import BUFFER_BYTES, MESSAGE_BYTES
from include.cdc.types import ARRAYS, REFUSED, TYPE_NAMES, Carried, carried

SHOWN = {"enum": "enums", "bpchar": "char(n)", "varchar": "varchar(n)", "char": '"char"', "bit": "bit(n)"}
AVRO = {"BIGINT": "long"}
ENGINES = {
    "boolean": ("boolean", "BOOLEAN", "Bool"),
    "int": ("integer", "INT", "Int32"),
    "long": ("bigint", "BIGINT", "Int64"),
    "float": ("real", "FLOAT", "Float32"),
    "double": ("double", "DOUBLE", "Float64"),
    "string": ("varchar", "STRING", "String"),
    "binary": ("varbinary", "BINARY", "String"),
    "date": ("date", "DATE", "Date32"),
    "timestamp": ("timestamp(6)", "TIMESTAMP_NTZ", "DateTime64(6)"),
    "timestamptz": ("timestamp(6) with time zone", "TIMESTAMP", "DateTime64(6, 'UTC')"),
    "map<string, string>": ("map(varchar, varchar)", "MAP<STRING, STRING>", "Map(String, Nullable(String))"),
}
"""Iceberg type → the same in Trino, Spark and ClickHouse."""

HEAD = """# Types

How each PostgreSQL type reaches the lake and its readers. This page is written by `python -m include.cdc.types`, from the
code that does it; `tests/integration/test_types.py` sends values of every row through the snapshot and the stream, and compares
them in PostgreSQL, Iceberg and ClickHouse (but of `xml`, which the packaged PostgreSQL is built without).

| PostgreSQL | Avro | Iceberg | Trino | Spark | ClickHouse |
| --- | --- | --- | --- | --- | --- |
"""

REST = """
A type that is not listed is refused by name before anything starts, as is a column of one; `exclude` leaves it out.

**Domains** are what their base type is, also domains over domains. **`numeric(p,s)`** of more than 38 digits is kept as
text, like `numeric` without precision. A ClickHouse column is `Nullable` unless it is in the key or an array or a map.

## Text

What is a string in the lake is PostgreSQL's own text of the value (`datestyle` ISO, `timezone` UTC), with these exceptions:
`interval` is ISO 8601 with all its fields (`P1Y2M-3DT4H5M6.789S`).

## Arrays

Arrays of {arrays}
are lists of what the element is, with NULL elements; an empty array and NULL are two values, but for ClickHouse, whose arrays
cannot be NULL: it reads NULL as an empty array. So it does with `hstore`, which is a map. A changelog has no `bytea[]`, which
Flink cannot cast there.

The lake's lists begin at 1 and have one dimension: a column declared with more is refused. PostgreSQL does not hold a value
to the declaration, though: one with two dimensions, or another lower bound, arrives changed, and the proof shows its row as
different.

## Values that a column cannot hold

| value | what happens |
| --- | --- |
| `infinity`, years before 1 or after 9999 in dates and times | the table's Flink job stops at it and names it |
| `NaN` in `numeric(p,s)` | the same |
| `NaN` in an array of numeric, NULL in an array of enums | the connector stops at it |
| `24:00:00` in time | arrives as `00:00:00`: Debezium has no such time. The proof shows the row as different |
| `infinity` in interval (PostgreSQL 17) | arrives as `P0Y0M0DT0H0M0S`, likewise |

A column that needs such values is kept as text: `text: [column]` under its table in the pipeline file, for date, timestamp,
timestamptz and numeric. It holds PostgreSQL's text of every value then: `infinity`, `0044-03-15 BC`, `NaN`.

ClickHouse documents `Date32` and `DateTime64` for the years 1900 to 2299. The pinned version reads, copies and shows all years
from 1 to 9999 unchanged (a test holds it to that); calculating with the others is not covered by its documentation.

## Not carried

| type | why |
| --- | --- |
{refused}

## Names

In the lake a name is in lower case, with `_` for whatever is not a letter of `a` to `z`, a digit or `_`, and with `_` before a
digit at its beginning. Two columns, or two tables, that would have the same name are refused, and columns named as those that
ShuDL adds. Schemas other than `public` become part of the table's name: `sales.orders` is `cdc_<source>.sales_orders`. A dot in
the name of a schema or table cannot be written in a pipeline file.

## Tables

- **Partitioned tables** are one table in the lake; name the root. Their partitions get `REPLICA IDENTITY FULL` too, those made
  later when the source's `cdc` DAG runs next.
- **Generated columns** are carried where they are STORED and the server is PostgreSQL 18 or newer; older servers do not publish
  them, and they are left out. A table with a VIRTUAL one is refused: with `REPLICA IDENTITY FULL`, PostgreSQL would refuse
  every update of it.
- **Primary keys** may have every type but floating point, arrays and `hstore`.
- **`money`** needs `lc_monetary` with dollars and two digits, such as `C`; other settings are refused.
- **Large values**: a change of up to {message} MiB, the row before and after it together. A snapshot holds {buffer} MiB of
  rows at a time.
"""


def _readers(iceberg: str) -> tuple[str, str, str]:
    if found := re.fullmatch(r"decimal\((\w+), (\w+)\)", iceberg):
        digits = f"({found[1]}, {found[2]})"
        return f"decimal{digits}", f"DECIMAL{digits}", f"Decimal{digits}"
    if found := re.fullmatch(r"list<(.*)>", iceberg):
        trino, spark, clickhouse = _readers(found[1])
        return f"array({trino})", f"ARRAY<{spark}>", f"Array(Nullable({clickhouse}))"
    return ENGINES[iceberg]


def _avro(flink: str) -> str:
    if found := re.fullmatch(r"ARRAY<(.*)>", flink):
        return f"array of {_avro(found[1])}"
    return AVRO.get(flink, "map of string" if flink.startswith("MAP") else flink.lower())


def _row(name: str, how: Carried) -> str:
    iceberg = str(how.iceberg()).replace("10, 2", "p, s")
    cells = (f"`{name}`", _avro(how.flink_source), *(f"`{cell}`" for cell in (iceberg, *_readers(iceberg))))
    return f"| {' | '.join(cells)} |"


def page() -> str:
    """The whole page, in Markdown."""
    decimal = carried("numeric", 10, 2)
    rows = [
        *(_row(SHOWN.get(name, name), carried(name, 2 if name == "bit" else None)) for name in TYPE_NAMES),
        _row("numeric(p,s)", decimal),
        _row("bit(1)", carried("bit")),
        _row("integer[]", carried("int4", array=True)),
        _row("numeric(p,s)[]", carried("numeric", 10, 2, array=True)),
    ]
    refused = "\n".join(f"| `{name}` | {why} |" for name, why in sorted(REFUSED.items()))
    arrays = ", ".join(SHOWN.get(name, name) for name in ARRAYS)
    rest = REST.format(arrays=arrays, refused=refused, message=MESSAGE_BYTES >> 20, buffer=BUFFER_BYTES >> 20)
    return HEAD + "\n".join(rows) + "\n" + rest
