"""One table of types: how a PostgreSQL type travels through Avro and Flink into Iceberg, and how each
engine writes its values down for the proof.

Debezium runs with ``decimal.handling.mode=string`` and ``time.precision.mode=isostring``, so that numerics
and times arrive as text without loss.
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
    ``trino_text``, ``clickhouse_text``: SQL that writes a non-null ``{c}`` as the same text in each engine.
    """

    flink_source: str
    flink_expression: str
    iceberg: Callable[[], IcebergType]
    postgres_text: str
    trino_text: str
    clickhouse_text: str


def _iceberg(name: str, *args: int) -> Callable[[], IcebergType]:
    def make() -> IcebergType:
        from pyiceberg import types

        return getattr(types, name)(*args)

    return make


_PLAIN_TIME = "REPLACE(REPLACE({c}, 'T', ' '), 'Z', '')"

_INT = ("CAST({c} AS text)", "CAST({c} AS varchar)", "toString({c})")
_TEXT = ("CAST({c} AS text)", "{c}", "{c}")
_TIMESTAMP = (
    "to_char({c}, 'YYYY-MM-DD HH24:MI:SS.US')",
    "date_format({c}, '%Y-%m-%d %H:%i:%s.%f')",
    "formatDateTime({c}, '%Y-%m-%d %H:%i:%S.%f', 'UTC')",
)

_TYPES: dict[str, Carried] = {
    "int2": Carried("INT", "{c}", _iceberg("IntegerType"), *_INT),
    "int4": Carried("INT", "{c}", _iceberg("IntegerType"), *_INT),
    "int8": Carried("BIGINT", "{c}", _iceberg("LongType"), *_INT),
    "bool": Carried(
        "BOOLEAN", "{c}", _iceberg("BooleanType"), "CAST({c} AS text)", "CAST({c} AS varchar)", "if({c}, 'true', 'false')"
    ),
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
    "date": Carried(
        "STRING",
        "CAST(REPLACE({c}, 'Z', '') AS DATE)",
        _iceberg("DateType"),
        "to_char({c}, 'YYYY-MM-DD')",
        "date_format({c}, '%Y-%m-%d')",
        "toString({c})",
    ),
    "timestamp": Carried("STRING", f"CAST({_PLAIN_TIME} AS TIMESTAMP(6))", _iceberg("TimestampType"), *_TIMESTAMP),
    "timestamptz": Carried(
        "STRING",
        f"CAST(CAST({_PLAIN_TIME} AS TIMESTAMP(6)) AS TIMESTAMP_LTZ(6))",
        _iceberg("TimestamptzType"),
        "to_char({c} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')",
        "date_format({c} AT TIME ZONE 'UTC', '%Y-%m-%d %H:%i:%s.%f')",
        "formatDateTime({c}, '%Y-%m-%d %H:%i:%S.%f', 'UTC')",
    ),
}
_AS_TEXT = ("varchar", "bpchar", "uuid", "json", "jsonb")


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
    if type_name in _AS_TEXT:
        return _TYPES["text"]
    try:
        return _TYPES[type_name]
    except KeyError:
        raise UnsupportedType(f"type {type_name} cannot be carried") from None
