"""The versions of a topic's Avro schema as one: what every record of the topic can be read as.

Needs nothing but Python: the Spark application reads it too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

WIDER = {("int", "long"), ("float", "double")}
"""(type, wider type): what Iceberg can make of a column without touching its rows."""


class Incompatible(ValueError):
    """A field has another type than before, and none that is wider."""


def name_of(kind: Any) -> str:
    """The type of a field in words, without ``null``: ``long``, ``timestamp-micros``."""
    if isinstance(kind, list):
        return "|".join(name_of(part) for part in kind if part != "null")
    if isinstance(kind, dict):
        return kind.get("logicalType") or (kind["type"] if isinstance(kind["type"], str) else json.dumps(kind, sort_keys=True))
    return str(kind)


def merged(versions: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The schema with each field that any version has, in its widest type. Raises :class:`Incompatible`."""
    fields: dict[str, dict[str, Any]] = {}
    head: dict[str, Any] = {}
    for version in versions:
        head = {key: value for key, value in version.items() if key != "fields"}
        for field in version["fields"]:
            known = fields.setdefault(field["name"], field)
            have, given = name_of(known["type"]), name_of(field["type"])
            if (have, given) in WIDER:
                fields[field["name"]] = field
            elif have != given and (given, have) not in WIDER:
                raise Incompatible(f"field {field['name']} was {have} and is now {given}")
    return {**head, "fields": list(fields.values())}
