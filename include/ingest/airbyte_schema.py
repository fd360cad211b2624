"""A stream's JSON schema as typed columns, and its records as Avro.

| JSON schema | column |
| --- | --- |
| integer | long |
| number | double |
| boolean | boolean |
| string | string; with format date: date; date-time: timestamp with a time zone, or without one where the source says so |
| object, array, several types, anything else | string, with the value as JSON |
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from fastavro import parse_schema, schemaless_writer

from include.cdc.pipelines import OFFSET, PARTITION
from include.ingest.sources import EMITTED_AT, LOADED_AT, UNDECLARED, lake_name
from include.lake import RESERVED

OWN = (EMITTED_AT, LOADED_AT, PARTITION, OFFSET, UNDECLARED)
KEY = "shudl.key"
"""Attribute of an Avro schema: the columns by which the table is deduplicated."""
KIND = "shudl.kind"
"""Attribute of a field of an Avro schema: the kind of its column."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_DAY = date(1970, 1, 1).toordinal()
LONGS = range(-(2**63), 2**63)


class Misfit(ValueError):
    """A record that does not fit its stream's schema; the text says which field and value."""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else as_json(value)


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _long(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("is no integer")
    if value not in LONGS:
        raise ValueError("has more than 64 bits")
    return value


def _double(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError("is no number")
    return float(value)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("is no boolean")
    return value


def _date(value: Any) -> int:
    return date.fromisoformat(_text(value)[:10]).toordinal() - EPOCH_DAY


def _instant(value: Any) -> int:
    found = datetime.fromisoformat(_text(value))
    return _micros(found if found.tzinfo else found.replace(tzinfo=UTC))


def _wall_time(value: Any) -> int:
    return _micros(datetime.fromisoformat(_text(value)).replace(tzinfo=UTC))


def _micros(found: datetime) -> int:
    passed = found - EPOCH
    return (passed.days * 86400 + passed.seconds) * 1_000_000 + passed.microseconds


KINDS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "long": ("long", _long),
    "double": ("double", _double),
    "boolean": ("boolean", _boolean),
    "string": ("string", _text),
    "json": ("string", as_json),
    "date": ({"type": "int", "logicalType": "date"}, _date),
    "instant": ({"type": "long", "logicalType": "timestamp-micros"}, _instant),
    "wall_time": ({"type": "long", "logicalType": "local-timestamp-micros"}, _wall_time),
}
"""Kind of a column → its Avro type, and how a JSON value becomes one."""


def kind(schema: Any) -> str:
    """The kind of column that holds what a JSON schema describes."""
    schema = schema if isinstance(schema, Mapping) else {}
    if any(word in schema for word in ("oneOf", "anyOf", "allOf", "$ref")):
        return "json"
    given = schema.get("type")
    types = {given} if isinstance(given, str) else set(given or ())
    match sorted(types - {"null"}):
        case ["integer"]:
            return "string" if schema.get("airbyte_type") == "big_integer" else "long"
        case ["number"] | ["integer", "number"]:
            return {"integer": "long", "big_integer": "string", "big_number": "string"}.get(schema.get("airbyte_type"), "double")
        case ["boolean"]:
            return "boolean"
        case ["string"]:
            known = schema.get("airbyte_type")
            match schema.get("format"):
                case "date":
                    return "date"
                case "date-time":
                    return "wall_time" if known == "timestamp_without_timezone" else "instant"
            return "string"
    return "json"


@dataclass(frozen=True)
class Columns:
    """The fields of a stream as columns: (field, column, kind)."""

    table: str
    fields: tuple[tuple[str, str, str], ...]
    key: tuple[str, ...] = ()
    """The fields by which the table is deduplicated."""

    @classmethod
    def of(
        cls, table: str, json_schema: Mapping[str, Any], text: tuple[str, ...] = (), key: tuple[str, ...] = ()
    ) -> Columns:
        """Columns are named as fields are, in small letters; a name that is taken gets a number.

        The column of a field in ``text`` is ``<name>_text``: one of its own, so that the field's column may have another type.
        """
        taken = {*OWN, *RESERVED}
        fields = []
        for field, schema in (json_schema.get("properties") or {}).items():
            name = column = f"{lake_name(field) or '_'}{'_text' if field in text else ''}"
            number = 2
            while column in taken:
                column, number = f"{name}_{number}", number + 1
            taken.add(column)
            fields.append((field, column, "string" if field in text else kind(schema)))
        return cls(table, tuple(fields), key)

    @classmethod
    def registered(cls, avro: Mapping[str, Any]) -> Columns:
        """The columns that :attr:`avro` was made of."""
        fields = [(field.get("doc", field["name"]), field["name"], field[KIND]) for field in avro["fields"] if KIND in field]
        return cls(avro["name"], tuple(fields))

    @property
    def avro(self) -> dict[str, Any]:
        """The Avro schema. Every field may be null but the one that tells when the source gave the record."""
        columns = [
            {"name": column, "type": ["null", KINDS[kind][0]], "default": None, "doc": field, KIND: kind}
            for field, column, kind in self.fields
        ]
        own = [
            {"name": UNDECLARED, "type": ["null", "string"], "default": None},
            {"name": EMITTED_AT, "type": {"type": "long", "logicalType": "timestamp-millis"}},
        ]
        head = {"type": "record", "name": self.table, "namespace": "airbyte.raw"}
        key = {KEY: [self.column(field) for field in self.key]} if self.key else {}
        return {**head, **key, "fields": [*columns, *own]}

    def column(self, field: str) -> str:
        """The column of a field. Raises KeyError."""
        return {field: column for field, column, _ in self.fields}[field]


class Encoder:
    """Records of one stream as Avro in the schema registry's format."""

    def __init__(self, columns: Columns, schema_id: int) -> None:
        # Without its logical types: values come as their numbers.
        bare = {**columns.avro, "fields": [{**field, "type": _bare(field["type"])} for field in columns.avro["fields"]]}
        self._schema = parse_schema(bare)
        self._head = b"\0" + schema_id.to_bytes(4, "big")
        self._fields = [(field, column, KINDS[kind][1]) for field, column, kind in columns.fields]
        self._declared = {field for field, _, _ in columns.fields}

    def encode(self, record: Mapping[str, Any], emitted_at: int) -> bytes:
        """``emitted_at`` in milliseconds. Raises :class:`Misfit`."""
        row: dict[str, Any] = {EMITTED_AT: emitted_at, UNDECLARED: None}
        for field, column, made in self._fields:
            value = record.get(field)
            if value is None:
                row[column] = None
                continue
            try:
                row[column] = made(value)
            except (ValueError, TypeError, OverflowError) as error:
                raise Misfit(f"field {field}: {as_json(value)[:80]} {_reason(error)}") from None
        if not record.keys() <= self._declared:
            row[UNDECLARED] = as_json({field: value for field, value in record.items() if field not in self._declared})
        out = io.BytesIO()
        out.write(self._head)
        try:
            schemaless_writer(out, self._schema, row)
        except UnicodeEncodeError as error:
            raise Misfit(f"is no Unicode text: {error.reason}") from None
        return out.getvalue()


def _reason(error: Exception) -> str:
    text = str(error)
    return text if text.startswith(("is ", "has ")) else f"is no date or time: {text}"


def _bare(kind: Any) -> Any:
    if isinstance(kind, list):
        return [_bare(part) for part in kind]
    return kind["type"] if isinstance(kind, dict) else kind
