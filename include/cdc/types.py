"""One table of types: how a PostgreSQL type travels through Avro and Flink into Iceberg, and how each
engine writes its values down for the proof. ``python -m include.cdc.types`` prints it as ``docs/types.md``.

Debezium runs with ``decimal.handling.mode=string``, ``time.precision.mode=isostring``, ``interval.handling.mode=string``,
``hstore.handling.mode=map`` and ``include.unknown.datatypes``: numerics and times arrive as text without loss, types
that it does not know as the bytes of PostgreSQL's text.

The canonical text of a value is the same in every engine, different for different values, and NULL for NULL
only. Only ``free_text`` may hold any character; all others keep to digits, letters and ``+ - : . , [ ] space``.
PostgreSQL's sessions need ``datestyle`` ISO and ``timezone`` UTC. A value that cannot be carried (infinity, a year
before 1, numeric NaN) is written so that it equals nothing in the lake.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyiceberg.types import IcebergType


class UnsupportedType(ValueError):
    """A PostgreSQL type that cannot be carried without loss."""


@dataclass(frozen=True)
class Carried:
    """How one column travels.

    ``flink_source``: its type in Flink's view of the topic; ``flink_expression``: SQL that turns the source
    column ``{c}`` into the Iceberg column; ``iceberg``: makes the Iceberg type (ids of nested fields are the catalogue's to
    give); ``postgres_text``, ``trino_text``, ``clickhouse_text``: SQL that gives the canonical text of ``{c}`` in each
    engine; ``snapshot``: what Debezium's snapshot has to read in PostgreSQL in the place of ``{c}``; ``castable``: whether
    each engine casts the canonical text back to the column's type; ``key``: whether it may be in a primary key.
    """

    flink_source: str
    flink_expression: str
    iceberg: Callable[[], IcebergType]
    postgres_text: str
    trino_text: str
    clickhouse_text: str
    free_text: bool = False
    snapshot: str = "{c}"
    castable: bool = True
    key: bool = True

    def served(self) -> Carried:
        """The same, for comparing the lake with ClickHouse, where no array or map is NULL: NULL is read as an empty one."""
        if not self.flink_source.startswith(("ARRAY", "MAP")):
            return self
        return replace(self, trino_text=f"coalesce({self.trino_text}, '[]')")


def _iceberg(name: str, *args: int) -> Callable[[], IcebergType]:
    def make() -> IcebergType:
        from pyiceberg import types

        return getattr(types, name)(*args)

    return make


def _map_type() -> IcebergType:
    from pyiceberg.types import MapType, StringType

    return MapType(-2, StringType(), -1, StringType(), value_required=False)


_PLAIN = ("CAST({c} AS text)", "CAST({c} AS varchar)", "toString({c})")
# As the type's output function writes it: a cast of bpchar, inet or "char" to text says something else.
_OUTPUT = "CASE WHEN {c} IS NOT NULL THEN format('%s', {c}) END"
_TEXT = Carried("STRING", "{c}", _iceberg("StringType"), _OUTPUT, "{c}", "{c}", free_text=True)


def _text(flink_expression: str, flink_source: str = "STRING", postgres_text: str = _OUTPUT) -> Carried:
    return replace(_TEXT, flink_expression=flink_expression, flink_source=flink_source, postgres_text=postgres_text)


_PLAIN_TIME = "REPLACE(REPLACE({c}, 'T', ' '), 'Z', '')"
# Flink would take years after 9999, and make some other time of those that stand for infinity.
_FLINK_TIMESTAMP = f"CAST(REPLACE({_PLAIN_TIME}, '+', 'after 9999: ') AS TIMESTAMP(6))"


def _postgres_timestamp(value: str) -> str:
    """``to_char`` gives NULL for infinity and drops the era: only years from 1 to 9999 are written by it."""
    return (
        "CASE WHEN {c} >= '0001-01-01' AND {c} < '10000-01-01' "
        f"THEN to_char({value}, 'YYYY-MM-DD HH24:MI:SS.US') ELSE CAST({{c}} AS text) END"
    )


# Not Trino's date_format: it rounds to milliseconds.
_TRINO_TIMESTAMP = "CAST(CAST({c} AS timestamp(6)) AS varchar)"
_CLICKHOUSE_TIMESTAMP = "toString(toDateTime64({c}, 6, 'UTC'))"

# The days that Debezium's stream gives for infinity. Its snapshot would read java.sql.Date, which has no BC, knows
# ten days of 1582 not, and has other years for infinity; it takes a bigint for days since 1970.
_DATE_SNAPSHOT = (
    "CAST(CASE WHEN isfinite({c}) THEN {c} - DATE '1970-01-01' WHEN {c} > DATE '1970-01-01' THEN 2146033979 "
    "WHEN {c} < DATE '1970-01-01' THEN -2147472691 END AS bigint)"
)
_INTERVAL = (
    "CASE WHEN isfinite({c}) THEN "
    + " || ".join(
        f"'{before}' || trim_scale(extract({part} FROM {{c}}))"
        for before, part in (("P", "year"), ("Y", "month"), ("M", "day"), ("DT", "hour"), ("H", "minute"), ("M", "second"))
    )
    + " || 'S' ELSE CAST({c} AS text) END"
)

_FLOAT_CLICKHOUSE = "lower(hex(reverse(reinterpretAsFixedString({c}))))"
_BINARY = Carried(
    "BYTES", "{c}", _iceberg("BinaryType"), "encode({c}, 'hex')", "lower(to_hex({c}))", "lower(hex({c}))", castable=False
)

_TYPES: dict[str, Carried] = {
    "int2": Carried("INT", "{c}", _iceberg("IntegerType"), *_PLAIN),
    "int4": Carried("INT", "{c}", _iceberg("IntegerType"), *_PLAIN),
    "int8": Carried("BIGINT", "{c}", _iceberg("LongType"), *_PLAIN),
    "oid": Carried("BIGINT", "{c}", _iceberg("LongType"), *_PLAIN),
    "bool": Carried("BOOLEAN", "{c}", _iceberg("BooleanType"), *_PLAIN),
    # Floats as their bits: no engine's decimal rendering is the same as another's.
    "float4": Carried(
        "FLOAT",
        "{c}",
        _iceberg("FloatType"),
        "encode(float4send({c}), 'hex')",
        "lower(to_hex(to_ieee754_32({c})))",
        _FLOAT_CLICKHOUSE,
        castable=False,
        key=False,
    ),
    "float8": Carried(
        "DOUBLE",
        "{c}",
        _iceberg("DoubleType"),
        "encode(float8send({c}), 'hex')",
        "lower(to_hex(to_ieee754_64({c})))",
        _FLOAT_CLICKHOUSE,
        castable=False,
        key=False,
    ),
    "money": Carried(
        "STRING",
        "CAST({c} AS DECIMAL(19, 2))",
        _iceberg("DecimalType", 19, 2),
        "CAST(CAST({c} AS numeric) AS text)",
        "CAST({c} AS varchar)",
        "toDecimalString({c}, 2)",
    ),
    "bytea": _BINARY,
    "date": Carried(
        "STRING",
        # Flink refuses every year before 1, but for the year 0.
        "CAST(REPLACE(CASE WHEN {c} LIKE '0000-%' THEN '-' ELSE '' END || {c}, 'Z', '') AS DATE)",
        _iceberg("DateType"),
        *_PLAIN,
        snapshot=_DATE_SNAPSHOT,
    ),
    "timestamp": Carried(
        "STRING",
        _FLINK_TIMESTAMP,
        _iceberg("TimestampType"),
        _postgres_timestamp("{c}"),
        _TRINO_TIMESTAMP,
        _CLICKHOUSE_TIMESTAMP,
    ),
    "timestamptz": Carried(
        "STRING",
        f"CAST({_FLINK_TIMESTAMP} AS TIMESTAMP_LTZ(6))",
        _iceberg("TimestamptzType"),
        _postgres_timestamp("{c} AT TIME ZONE 'UTC'"),
        _TRINO_TIMESTAMP.replace("{c}", "{c} AT TIME ZONE 'UTC'"),
        _CLICKHOUSE_TIMESTAMP,
    ),
    "time": _text("REPLACE({c}, 'Z', '')"),
    "interval": _text("{c}", postgres_text=_INTERVAL),
    "hstore": Carried(
        "MAP<STRING, STRING>",
        "{c}",
        _map_type,
        "CASE WHEN {c} IS NOT NULL THEN '[' || coalesce((SELECT string_agg(length(u.key) || ':' || u.key || '=' || "
        "coalesce(length(u.value) || ':' || u.value, 'N'), ',' ORDER BY u.key COLLATE \"C\") FROM each({c}) AS u), '') "
        "|| ']' END",
        "'[' || array_join(transform(array_sort(map_keys({c})), k -> CAST(length(k) AS varchar) || ':' || k || '=' || "
        "coalesce(CAST(length({c}[k]) AS varchar) || ':' || {c}[k], 'N')), ',') || ']'",
        "concat('[', arrayStringConcat(arrayMap(k -> concat(toString(lengthUTF8(k)), ':', k, '=', "
        "ifNull(concat(toString(lengthUTF8({c}[k])), ':', {c}[k]), 'N')), arraySort(mapKeys({c}))), ','), ']')",
        free_text=True,
        castable=False,
        key=False,
    ),
}
_AS_TEXT = (
    *("text", "varchar", "bpchar", "char", "name", "citext", "uuid", "json", "jsonb", "xml", "ltree"),
    *("inet", "cidr", "macaddr", "macaddr8", "int4range", "int8range", "numrange", "tsrange", "tstzrange", "daterange"),
    "tsvector",
)
"""Types that Debezium gives as PostgreSQL's text, beside the enums."""
_AS_BYTES = (
    *("int4multirange", "int8multirange", "nummultirange", "tsmultirange", "tstzmultirange", "datemultirange"),
    *("tsquery", "jsonpath", "pg_lsn", "pg_snapshot", "txid_snapshot", "xid", "xid8", "tid", "cube", "seg"),
)
"""Types that Debezium does not know: it gives PostgreSQL's text as bytes."""
_TYPES |= dict.fromkeys(_AS_TEXT, _TEXT) | dict.fromkeys(_AS_BYTES, _text("DECODE({c}, 'UTF-8')", "BYTES"))
TYPE_NAMES = (*_TYPES, "enum", "numeric", "bit")
"""Every type that can be carried, by ``pg_type.typname``; ``enum`` stands for all of them."""

ARRAYS = (
    *("int2", "int4", "int8", "oid", "bool", "float4", "float8", "numeric", "bytea", "text", "varchar", "bpchar", "citext"),
    *("uuid", "json", "jsonb", "enum", "ltree", "inet", "cidr", "macaddr", "macaddr8"),
    *("int4range", "int8range", "numrange", "tsrange", "tstzrange", "daterange"),
)
"""Types of which arrays can be carried."""

REFUSED = {
    "timetz": "Debezium gives it in UTC, without its zone",
    "varbit": "Debezium gives the bits that are set, not how many there are",
    "composite": "row types have no faithful text",
    "domain[]": "Debezium does not know what the domain is of",
    "point": "Debezium gives well-known binary, which has no text that all engines share",
    "time[]": "Debezium drops the microseconds of a time in an array",
    "date[]": "Debezium changes dates before 1582 in an array",
    "timestamp[]": "Debezium changes times before 1582 in an array",
    "timestamptz[]": "Debezium gives text, which Flink casts in no array",
}
"""Why some types cannot be carried."""
REFUSED |= dict.fromkeys(("line", "lseg", "box", "path", "polygon", "circle"), REFUSED["point"])


def _numeric_text() -> Carried:
    special = {"NAN": "NaN", "POSITIVE_INFINITY": "Infinity", "NEGATIVE_INFINITY": "-Infinity"}
    cases = " ".join(f"WHEN '{given}' THEN '{text}'" for given, text in special.items())
    return _text(f"CASE {{c}} {cases} ELSE {{c}} END")


def _time_text(zone: str) -> Carried:
    """PostgreSQL's text of a date or time, from Debezium's ISO text with its astronomical year (0 is 1 BC)."""
    year = "CAST(REGEXP_EXTRACT({c}, '^([+-]?[0-9]+)', 1) AS INT)"
    rest = f"REGEXP_REPLACE({_PLAIN_TIME}, '^[+-]?[0-9]+', '')"
    # Zeros are cut only from a fraction: what has none ends in two digits of a day or second.
    rest = f"CASE WHEN {{c}} LIKE '%.%' THEN REGEXP_REPLACE({rest}, '[.]?0*$', '') ELSE {rest} END"

    def padded(number: str) -> str:
        return f"LPAD(CAST({number} AS STRING), GREATEST(4, CHAR_LENGTH(CAST({number} AS STRING))), '0')"

    return _text(
        "CASE WHEN {c} IN ('infinity', '-infinity') THEN {c} "
        "WHEN {c} LIKE '+5877611-%' OR {c} LIKE '+292278994-%' THEN 'infinity' "
        "WHEN {c} LIKE '-5877611-%' OR {c} LIKE '-292275055-%' THEN '-infinity' "
        f"WHEN {year} > 0 THEN {padded(year)} || {rest} || '{zone}' "
        f"ELSE {padded(f'(1 - {year})')} || {rest} || '{zone} BC' END"
    )


def _bits(length: int) -> Carried:
    """Debezium gives bit(1) as a boolean, longer ones as bytes, the lowest first and without those that are 0 at the end."""
    if length == 1:
        return _text("CASE {c} WHEN TRUE THEN '1' WHEN FALSE THEN '0' END", "BOOLEAN")
    # HEX knows strings only: it shows the UTF-8 of the characters that the bytes are in ISO-8859-1.
    bits = r"REGEXP_REPLACE(HEX(REVERSE(DECODE({c}, 'ISO-8859-1'))), '(?<=\G..)', ' ')"
    for utf8, byte in (("C2 ", ""), ("C3 8", "c"), ("C3 9", "d"), ("C3 A", "e"), ("C3 B", "f"), (" ", "")):
        bits = f"REPLACE({bits}, '{utf8}', '{byte}')"
    bits = f"UPPER({bits})"
    for digit in range(16):
        # Letters for now: the next digits to replace are 0 and 1 too.
        bits = f"REPLACE({bits}, '{digit:X}', '{f'{digit:04b}'.replace('0', 'o').replace('1', 'i')}')"
    bits = f"REPLACE(REPLACE({bits}, 'o', '0'), 'i', '1')"
    return _text(f"LPAD(RIGHT({bits}, {length}), {length}, '0')", "BYTES")


def _numeric(precision: int | None, scale: int | None) -> Carried:
    if precision is None or scale is None:
        return _numeric_text()
    # PostgreSQL allows a scale below 0 and one above the precision. Flink counts the 0 before the point as a digit.
    digits, scale = max(precision - min(scale, 0), scale + 1), max(scale, 0)
    if digits > 38:
        return _numeric_text()
    return Carried(
        "STRING",
        f"CAST({{c}} AS DECIMAL({digits}, {scale}))",
        _iceberg("DecimalType", digits, scale),
        "CAST({c} AS text)",
        "CAST({c} AS varchar)",
        f"toDecimalString({{c}}, {scale})",
    )


def _array(element: Carried) -> Carried:
    """An array: each element's text after its length, ``N`` for NULL, so that no two arrays share a text.

    The lake has no bounds but 1, and one dimension: other arrays of PostgreSQL are written so that they equal nothing there.
    """

    def make() -> IcebergType:
        from pyiceberg.types import ListType

        return ListType(-1, element.iceberg(), element_required=False)

    postgres, trino, clickhouse = (
        text.replace("{c}", name)
        for text, name in ((element.postgres_text, "u.e"), (element.trino_text, "e"), (element.clickhouse_text, "e"))
    )
    cast = element.flink_expression.removeprefix("CAST({c} AS ").removesuffix(")")
    return Carried(
        f"ARRAY<{element.flink_source}>",
        "{c}" if element.flink_expression == "{c}" else f"CAST({{c}} AS ARRAY<{cast}>)",
        make,
        "CASE WHEN array_ndims({c}) > 1 OR array_lower({c}, 1) <> 1 THEN CAST({c} AS text) WHEN {c} IS NOT NULL THEN "
        f"'[' || coalesce((SELECT string_agg(coalesce(length({postgres}) || ':' || {postgres}, 'N'), ',' ORDER BY u.n) "
        "FROM unnest({c}) WITH ORDINALITY AS u (e, n)), '') || ']' END",
        f"'[' || array_join(transform({{c}}, e -> coalesce(CAST(length({trino}) AS varchar) || ':' || {trino}, 'N')), ',') "
        "|| ']'",
        f"concat('[', arrayStringConcat(arrayMap(e -> ifNull(concat(toString(lengthUTF8({clickhouse})), ':', {clickhouse}), "
        "'N'), {c}), ','), ']')",
        free_text=element.free_text,
        castable=False,
        key=False,
    )


def carried(type_name: str, precision: int | None = None, scale: int | None = None, array: bool = False) -> Carried:
    """How the PostgreSQL type ``type_name`` (``pg_type.typname``, ``enum`` for an enum) travels.

    ``precision`` and ``scale``: of numeric; for bit, ``precision`` is its length. ``array``: an array of the type, of one
    dimension. Raises :class:`UnsupportedType`.
    """
    shown = f"{type_name}[]" if array else type_name
    if type_name not in TYPE_NAMES or (array and type_name not in ARRAYS):
        reason = REFUSED.get(shown, "")
        raise UnsupportedType(f"type {shown} cannot be carried{f': {reason}' if reason else ''}; exclude the column")
    if type_name == "numeric":
        made = _numeric(precision, scale)
        if array and made.iceberg is _TEXT.iceberg:
            raise UnsupportedType("type numeric[] cannot be carried; declare at most 38 digits, for example numeric(38,10)[]")
    elif type_name == "bit":
        made = _bits(precision or 1)
    else:
        made = _TEXT if type_name == "enum" else _TYPES[type_name]
    return _array(made) if array else made


def carried_as_text(type_name: str, array: bool = False) -> Carried:
    """How a column travels that is to be kept as PostgreSQL's text (``text`` in the pipeline file).

    Raises :class:`UnsupportedType` for a type whose native column holds every value.
    """
    made = {
        "numeric": _numeric_text(),
        "date": replace(_time_text(""), snapshot=_DATE_SNAPSHOT),
        "timestamp": _time_text(""),
        "timestamptz": _time_text("+00"),
    }.get(type_name)
    if array or (made is None and _TYPES.get(type_name) is not _TEXT):
        raise UnsupportedType(
            f"type {type_name}{'[]' if array else ''} cannot be kept as text, which is for numeric, date, timestamp and "
            "timestamptz; take the column out of text"
        )
    return made or _TEXT


if __name__ == "__main__":
    from include.cdc.types_page import page

    print(page(), end="")
