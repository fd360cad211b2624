"""Parquet: a file's columns and rows as they go into the lake. ``_line`` is the row's number, from 1."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from include.ingest.files_csv import Parsed
from include.ingest.files_records import Dead, FileError
from include.ingest.landing_options import column_names

ROWS = 128 << 10
"""Rows that are read at a time."""


def normal(name: str, kind: pa.DataType) -> pa.DataType:
    """The type that a column has in the lake. Raises :class:`FileError`."""
    types = pa.types
    if types.is_dictionary(kind):
        return normal(name, kind.value_type)
    if types.is_int64(kind) or types.is_signed_integer(kind) or kind in (pa.uint8(), pa.uint16(), pa.uint32()):
        return pa.int64()
    if kind == pa.uint64():
        return pa.decimal128(20, 0)
    if types.is_floating(kind):
        return pa.float64()
    if types.is_timestamp(kind):
        return pa.timestamp("us", "UTC" if kind.tz else None)
    if types.is_date(kind):
        return pa.date32()
    if types.is_boolean(kind) or types.is_decimal128(kind):
        return kind
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return pa.binary()
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_time(kind):
        return pa.string()
    if types.is_null(kind) or types.is_nested(kind):
        return pa.string()  # nested values as JSON
    raise FileError(f"has the column {name} of type {kind}, which the lake has not; change it in the file")


@dataclass
class Parquet:
    """How one file is read: ``columns`` in the file's order with the types that they get."""

    file: pq.ParquetFile
    columns: dict[str, pa.DataType]

    @classmethod
    def open(cls, source: IO[bytes], known: Mapping[str, pa.DataType]) -> Parquet:
        """Raises :class:`FileError`."""
        try:
            file = pq.ParquetFile(source)
        except (pa.ArrowInvalid, OSError) as error:
            raise FileError(f"is no whole Parquet file: {error}") from None
        schema = file.schema_arrow
        names = column_names(schema.names)
        found = zip(names, schema, strict=True)
        return cls(file, {name: known.get(name) or normal(name, column.type) for name, column in found})

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The number of the first row of each batch, and the batch."""
        first = 1
        for batch in self.file.iter_batches(ROWS):
            yield first, batch
            first += len(batch)

    def parse(self, numbered: tuple[int, pa.RecordBatch]) -> Parsed:
        """The rows of a batch. Thread-safe."""
        first, batch = numbered
        tables: list[pa.Table] = []
        dead: list[Dead] = []
        self._convert(first, batch, tables, dead)
        return Parsed(pa.concat_tables(tables) if tables else None, dead, len(batch))

    def _convert(self, first: int, batch: pa.RecordBatch, tables: list[pa.Table], dead: list[Dead]) -> None:
        try:
            arrays = [_cast(name, batch.column(place), kind) for place, (name, kind) in enumerate(self.columns.items())]
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
            if len(batch) == 1:
                dead.append(Dead(first, _json(batch.to_pylist()[0]).encode(), str(error)))
                return
            middle = len(batch) // 2
            self._convert(first, batch.slice(0, middle), tables, dead)
            self._convert(first + middle, batch.slice(middle), tables, dead)
        else:
            lines = pa.array(range(first, first + len(batch)), pa.int64())
            tables.append(pa.Table.from_arrays([*arrays, lines], names=[*self.columns, "_line"]))


def _cast(name: str, array: pa.Array, kind: pa.DataType) -> pa.Array:
    if array.type == kind:
        return array
    if pa.types.is_nested(array.type):
        return pa.array([None if value is None else _json(value) for value in array.to_pylist()], pa.string()).cast(kind)
    try:
        return array.cast(kind)
    except pa.ArrowInvalid as error:
        if pa.types.is_timestamp(kind) and pa.types.is_timestamp(array.type):
            return array.cast(kind, safe=False)  # nanoseconds are cut off
        raise ValueError(f"{name}: {error}") from None


def _json(value: Any) -> str:
    return json.dumps(value, default=lambda v: v.hex() if isinstance(v, bytes) else str(v), ensure_ascii=False)
