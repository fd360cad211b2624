"""JSON lines: the columns of a file, and its records as Arrow tables. Objects and lists within a row stay JSON, as text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from include.ingest.files_csv import Parsed
from include.ingest.files_records import Block, Dead
from include.ingest.landing_options import column_name, column_names

LONG = range(-(2**63), 2**63)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _row(raw: bytes, encoding: str) -> dict[str, Any]:
    """A line's object. Raises ValueError."""
    row = json.loads(raw.decode(encoding), parse_constant=_refuse)
    if not isinstance(row, dict):
        raise ValueError(f"is no JSON object but {type(row).__name__}; a line is one object")
    return row


def columns_of(records: Iterable[Block | Dead], encoding: str, known: Mapping[str, pa.DataType]) -> dict[str, pa.DataType]:
    """The keys of all records with their types: those of ``known``, else the narrowest that holds all values."""
    kinds: dict[str, set[type]] = {}
    for block in records:
        if isinstance(block, Dead):
            continue
        for index in range(len(block)):
            try:
                row = _row(block.raw(index), encoding)
            except ValueError:
                continue
            for key, value in row.items():
                kinds.setdefault(key, set()).add(str if type(value) is int and value not in LONG else type(value))
    names = dict(zip(kinds, column_names(kinds), strict=True))
    return {names[key]: known.get(names[key]) or _type(seen - {type(None)}) for key, seen in kinds.items()}


def _type(seen: set[type]) -> pa.DataType:
    if seen == {bool}:
        return pa.bool_()
    if seen == {int}:
        return pa.int64()
    if seen in ({float}, {int, float}):
        return pa.float64()
    return pa.string()


@dataclass
class Json:
    """How one file is read: ``columns`` with their types."""

    encoding: str
    columns: dict[str, pa.DataType]

    def parse(self, block: Block) -> Parsed:
        """The rows of a block. Thread-safe."""
        values: dict[str, list[Any]] = {name: [] for name in self.columns}
        lines: list[int] = []
        dead: list[Dead] = []
        for index in range(len(block)):
            raw, line = block.raw(index), int(block.lines[index])
            try:
                row = {column_name(key): value for key, value in _row(raw, self.encoding).items()}
                row = {name: self._value(name, kind, row.get(name)) for name, kind in self.columns.items()}
            except ValueError as error:
                dead.append(Dead(line, raw, str(error)))
                continue
            for name, value in row.items():
                values[name].append(value)
            lines.append(line)
        if not lines:
            return Parsed(None, dead, len(block))
        arrays = [pa.array(values[name], kind) for name, kind in self.columns.items()]
        table = pa.Table.from_arrays([*arrays, pa.array(lines, pa.int64())], names=[*self.columns, "_line"])
        return Parsed(table, dead, len(block))

    def _value(self, name: str, kind: pa.DataType, value: Any) -> Any:
        """``value`` as one that ``kind`` takes. Raises ValueError."""
        if value is None:
            return None
        if pa.types.is_string(kind):
            return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        fits = {
            pa.bool_(): isinstance(value, bool),
            pa.int64(): type(value) is int and value in LONG,
            pa.float64(): type(value) in (int, float),
        }.get(kind)
        if fits:
            return float(value) if kind == pa.float64() else value
        if fits is None and not isinstance(value, dict | list):
            try:
                return pa.scalar(str(value)).cast(kind).as_py()
            except pa.ArrowInvalid as error:
                raise ValueError(f"{name}: {error}") from None
        raise ValueError(f"{name}: invalid value {json.dumps(value)[:100]} (its type is {kind})")
