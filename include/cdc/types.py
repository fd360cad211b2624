"""One table of types: how a PostgreSQL type travels through Avro and Flink into Iceberg, and how each
engine writes its values down for the proof.

Debezium runs with ``decimal.handling.mode=string`` and ``time.precision.mode=isostring``, so that numerics
and times arrive as text without loss.

The canonical text of a value is the same in every engine, different for different values, and NULL for NULL
only. Only ``free_text`` may hold any character; all others keep to digits, letters and ``+ - : . space``.
PostgreSQL's sessions need ``datestyle`` ISO and ``timezone`` UTC. A value that cannot be carried (infinity, a year
before 1, numeric NaN) is written so that it equals nothing in the lake.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyiceberg.types import IcebergType


class UnsupportedType(ValueError):
    """A PostgreSQL type that cannot be carried without loss."""


@dataclass(frozen=True)
class Carried:
    """How one column travels.

    ``flink_source``: its type in Flink's view of the topic; ``flink_expression``: SQL that turns the source
    column ``{c}`` into the Iceberg column; ``iceberg``: makes the Iceberg type; ``postgres_text``,
    ``trino_text``, ``clickhouse_text``: SQL that gives the canonical text of ``{c}`` in each engine.
    """

    flink_source: str
    flink_expression: str
    iceberg: Callable[[], IcebergType]
    postgres_text: str
    trino_text: str
    clickhouse_text: str
    free_text: bool = False


def _iceberg(name: str, *args: int) -> Callable[[], IcebergType]:
    def make() -> IcebergType:
        from pyiceberg import types

        return getattr(types, name)(*args)

    return make


_PLAIN_TIME = "REPLACE(REPLACE({c}, 'T', ' '), 'Z', '')"

_PLAIN = ("CAST({c} AS text)", "CAST({c} AS varchar)", "toString({c})")
_TEXT = ("CAST({c} AS text)", "{c}", "{c}", True)


def _postgres_timestamp(value: str) -> str:
    """``to_char`` gives NULL for infinity and drops the era: only years from 1 to 9999 are written by it."""
    return (
        "CASE WHEN {c} >= '0001-01-01' AND {c} < '10000-01-01' "
        f"THEN to_char({value}, 'YYYY-MM-DD HH24:MI:SS.US') ELSE CAST({{c}} AS text) END"
    )


# Not Trino's date_format: it rounds to milliseconds.
_TRINO_TIMESTAMP = "CAST(CAST({c} AS timestamp(6)) AS varchar)"
_CLICKHOUSE_TIMESTAMP = "toString(toDateTime64({c}, 6, 'UTC'))"

_TYPES: dict[str, Carried] = {
    "int2": Carried("INT", "{c}", _iceberg("IntegerType"), *_PLAIN),
    "int4": Carried("INT", "{c}", _iceberg("IntegerType"), *_PLAIN),
    "int8": Carried("BIGINT", "{c}", _iceberg("LongType"), *_PLAIN),
    "bool": Carried("BOOLEAN", "{c}", _iceberg("BooleanType"), *_PLAIN),
    # Floats as their bits: no engine's decimal rendering is the same as another's.
    "float4": Carried(
        "FLOAT",
        "{c}",
        _iceberg("FloatType"),
        "encode(float4send({c}), 'hex')",
        "lower(to_hex(to_ieee754_32({c})))",
        "lower(hex(reverse(reinterpretAsFixedString({c}))))",
    ),
    "float8": Carried(
        "DOUBLE",
        "{c}",
        _iceberg("DoubleType"),
        "encode(float8send({c}), 'hex')",
        "lower(to_hex(to_ieee754_64({c})))",
        "lower(hex(reverse(reinterpretAsFixedString({c}))))",
    ),
    "text": Carried("STRING", "{c}", _iceberg("StringType"), *_TEXT),
    "date": Carried("STRING", "CAST(REPLACE({c}, 'Z', '') AS DATE)", _iceberg("DateType"), *_PLAIN),
    "timestamp": Carried(
        "STRING",
        f"CAST({_PLAIN_TIME} AS TIMESTAMP(6))",
        _iceberg("TimestampType"),
        _postgres_timestamp("{c}"),
        _TRINO_TIMESTAMP,
        _CLICKHOUSE_TIMESTAMP,
    ),
    "timestamptz": Carried(
        "STRING",
        f"CAST(CAST({_PLAIN_TIME} AS TIMESTAMP(6)) AS TIMESTAMP_LTZ(6))",
        _iceberg("TimestamptzType"),
        _postgres_timestamp("{c} AT TIME ZONE 'UTC'"),
        _TRINO_TIMESTAMP.replace("{c}", "{c} AT TIME ZONE 'UTC'"),
        _CLICKHOUSE_TIMESTAMP,
    ),
    # As Debezium reads it: with the blanks that a cast to text would take away.
    "bpchar": Carried("STRING", "{c}", _iceberg("StringType"), "textin(bpcharout({c}))", *_TEXT[1:]),
}
_TYPES |= dict.fromkeys(("varchar", "uuid", "json", "jsonb"), _TYPES["text"])
TYPE_NAMES = (*_TYPES, "numeric")
"""Every type that can be carried, by ``pg_type.typname``."""


def carried(type_name: str, precision: int | None = None, scale: int | None = None) -> Carried:
    """How the PostgreSQL type ``type_name`` (``pg_type.typname``) travels; ``precision`` and ``scale`` for numeric.

    Raises :class:`UnsupportedType`.
    """
    if type_name == "numeric":
        if precision is None or scale is None:
            raise UnsupportedType("numeric without precision cannot be carried; declare it, for example numeric(38,10)")
        if precision > 38 or not 0 <= scale <= precision:
            raise UnsupportedType(f"numeric({precision},{scale}) cannot be carried; Iceberg holds at most 38 digits")
        return Carried(
            "STRING",
            f"CAST({{c}} AS DECIMAL({precision}, {scale}))",
            _iceberg("DecimalType", precision, scale),
            "CAST({c} AS text)",
            "CAST({c} AS varchar)",
            f"toDecimalString({{c}}, {scale})",
        )
    try:
        return _TYPES[type_name]
    except KeyError:
        raise UnsupportedType(f"type {type_name} cannot be carried") from None
