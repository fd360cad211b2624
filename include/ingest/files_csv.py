"""CSV: what a file's columns are, and its records as Arrow tables. Records that do not fit are dead, each with the reason."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc

from include.ingest.files_records import Block, Dead, FileError, blocks
from include.ingest.landing_options import Folder, column_name, column_names

DELIMITERS = ",;\t|"
SAMPLE = 4 << 20
"""Bytes of a file by which its columns' types are found."""
LINES = 20
"""Lines by which the delimiter is found."""
SAID = re.compile(r"In CSV column #(\d+): (?:Row #\d+: )?CSV conversion error to ([^:]+): (.*)", re.S)
NUMBER = re.compile(r"[+-]?\d+([.,]\d*)?([eE][+-]?\d+)?|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}.*")
CODE = r"^[+-]?0\d|^\d{16,}$"
"""Digits that are no number: something is lost when they become one."""


@dataclass
class Parsed:
    """What became of a block: columns by name with ``_line`` (``rows`` once they are written), and what is dead."""

    table: pa.Table | None
    dead: list[Dead]
    read: int
    rows: int = 0


@dataclass
class Csv:
    """How one file is read: ``columns`` in the file's order with their types; ``header`` is whether line 1 names them."""

    delimiter: str
    encoding: str
    nulls: tuple[str, ...]
    columns: dict[str, pa.DataType]
    header: bool = False

    def parse(self, block: Block) -> Parsed:
        """The rows of a block. Thread-safe."""
        tables: list[pa.Table] = []
        dead: list[Dead] = []
        self._convert(block, 0, len(block), tables, dead)
        return Parsed(pa.concat_tables(tables) if tables else None, dead, len(block))

    def _convert(self, block: Block, low: int, high: int, tables: list[pa.Table], dead: list[Dead]) -> None:
        """Records ``low`` to ``high``; where some do not fit they are halved until those are alone."""
        if low == high:
            return
        invalid: list[Any] = []
        try:
            table = self._read(block.slice(low, high), invalid)
            whole = table.num_rows + len(invalid) == high - low
            problem = "" if whole else "a line break or a quote stands in the midst of a value"
        except (pa.ArrowInvalid, UnicodeError) as error:
            problem = self._reason(error)
        if problem and high - low == 1:
            dead.append(Dead(int(block.lines[low]), block.raw(low), problem))
        elif problem:
            middle = (low + high) // 2
            self._convert(block, low, middle, tables, dead)
            self._convert(block, middle, high, tables, dead)
        else:
            lines = block.lines[low:high]
            if invalid:
                places = np.array([row.number - 1 for row in invalid])
                for place, row in zip(places, invalid, strict=True):
                    reason = f"has {row.actual_columns} values; the file has {row.expected_columns} columns"
                    dead.append(Dead(int(lines[place]), block.raw(low + int(place)), reason))
                lines = np.delete(lines, places)
            if len(lines):
                tables.append(table.append_column("_line", pa.array(lines, pa.int64())))

    def _read(self, data: memoryview, invalid: list[Any]) -> pa.Table:
        if self.encoding != "utf-8":
            data = memoryview(str(data, self.encoding).encode())

        def skip(row: Any) -> str:
            invalid.append(row)
            return "skip"

        return pc.read_csv(
            pa.BufferReader(data),
            read_options=pc.ReadOptions(column_names=list(self.columns), use_threads=False, block_size=len(data) + 64),
            parse_options=pc.ParseOptions(delimiter=self.delimiter, newlines_in_values=True, invalid_row_handler=skip),
            convert_options=pc.ConvertOptions(
                column_types=self.columns,
                null_values=list(self.nulls),
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )

    def _reason(self, error: Exception) -> str:
        if isinstance(error, UnicodeDecodeError):
            return f"byte {error.object[error.start]:#04x} at {error.start} is not {self.encoding}"
        if found := SAID.search(str(error)):
            place, kind, text = found.groups()
            return f"{list(self.columns)[int(place)]}: {text} (its type is {kind})"
        return str(error)


def _delimiter(lines: list[str]) -> str:
    """What parts the values of ``lines`` into the same number, the largest; a comma where nothing does."""

    def width(delimiter: str) -> tuple[int, int]:
        counts = [len(row) for row in csv.reader(lines, delimiter=delimiter) if row]
        most = max(counts.count(counts[0]), 1) if counts else 1
        return (most if counts and counts[0] > 1 else 0), (counts[0] if counts else 0)

    return max(DELIMITERS, key=width)


def _is_header(first: list[str], known: Iterable[str]) -> bool:
    """Whether the values of the first line are names: those of the table's columns, or distinct ones that are no numbers."""
    known = set(known)
    if known and known.issuperset(map(column_name, first)):
        return True
    return all(first) and len(set(first)) == len(first) and not any(NUMBER.fullmatch(value.strip()) for value in first)


def open_csv(
    chunks: Iterable[bytes], options: Folder, known: Mapping[str, pa.DataType], name: str = ""
) -> tuple[Csv | None, Iterator[Block | Dead]]:
    """How to read the file, and its records; None for one without any.

    ``chunks`` are its bytes, unzipped, without a byte order mark; ``known`` the columns that the table has already, in their
    order. Raises :class:`FileError`.
    """
    chunks = iter(chunks)
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= SAMPLE:
            break
    if not head.strip():
        return None, iter(())
    sample = head.lstrip(b"\r\n") if len(head) < SAMPLE else head[: head.rfind(b"\n", 0, SAMPLE) + 1] or head[:SAMPLE]
    text = sample[: 1 << 20].decode(options.encoding, "replace").splitlines()[:LINES]
    delimiter = options.delimiter or ("\t" if name.endswith(".tsv") else _delimiter(text))
    longest = options.longest_line_mb << 20
    records = blocks(chain([head], chunks), delimiter, longest)
    first = next(records, None)
    while isinstance(first, Block) and not len(first):
        first = next(records, None)
    if not isinstance(first, Block):
        raise FileError(f"has a first line that cannot be read: {first.reason if first else 'it is empty'}")
    row = next(csv.reader(io.StringIO(first.raw(0).decode(options.encoding, "replace"), newline=""), delimiter=delimiter))
    fixed = options.arrow_types()
    header = options.header if options.header != "auto" else not options.columns and _is_header(row, known)
    if header:
        names = column_names(row)
    elif options.columns:
        names = column_names(options.columns)
    elif known:
        names = list(known)
        if len(names) < len(row):
            raise FileError(
                f"has {len(row)} columns and no header, and the table has {len(names)}: {', '.join(names)}; "
                "set columns in the folder's pipeline file, or put the file into another folder"
            )
        names = names[: len(row)]
    else:
        names = [f"c{place}" for place in range(1, len(row) + 1)]
    reader = Csv(delimiter, options.encoding, options.nulls, dict.fromkeys(names, pa.string()), header)
    if header:
        first = Block(first.data, first.starts[1:], first.ends[1:], first.lines[1:])
    while isinstance(first, Block) and not len(first):
        first = next(records, None)
    if first is None:
        return None, iter(())
    if isinstance(first, Dead):
        reader.columns = {name: known.get(name) or fixed.get(name) or pa.string() for name in names}
        return reader, chain([first], records)
    wanted = {**fixed, **known}
    if any(name not in wanted for name in names):
        reader.columns = {name: wanted.get(name) or kind for name, kind in _found(reader, first).items()}
    else:
        reader.columns = {name: wanted[name] for name in names}
    return reader, chain([first], records)


def _found(reader: Csv, block: Block) -> dict[str, pa.DataType]:
    """The types of the columns by the first records, at most :data:`SAMPLE` bytes of them."""
    texts: list[pa.Table] = []
    count = int(np.searchsorted(block.ends - (block.starts[0] if len(block) else 0), SAMPLE)) or len(block)
    reader._convert(block, 0, min(count, len(block)), texts, [])
    if not texts:
        return reader.columns
    table = pa.concat_tables(texts)
    return {name: _type_of(table[name]) for name in reader.columns}


def _type_of(column: pa.ChunkedArray) -> pa.DataType:
    """The narrowest type that all values of a column of texts have, by what the CSV reader takes for one."""
    import pyarrow.compute as compute

    values = column.drop_null()
    if not len(values) or compute.any(compute.match_substring_regex(values, CODE)).as_py():
        return pa.string()
    # As CSV again, one value a line: what infers here is what later converts.
    joined = compute.binary_join(pa.ListArray.from_arrays([0, len(values)], _one(values)), "\n")[0].as_py()
    if '"' in joined or joined.count("\n") != len(values) - 1 or "\r" in joined:
        return pa.string()
    found = pc.read_csv(
        pa.BufferReader(joined.encode()),
        read_options=pc.ReadOptions(column_names=["value"], use_threads=False, block_size=len(joined) + 4096),
        parse_options=pc.ParseOptions(delimiter="\x1f", ignore_empty_lines=False),
        convert_options=pc.ConvertOptions(strings_can_be_null=False, null_values=[]),
    )["value"].type
    if pa.types.is_timestamp(found):
        return pa.timestamp("us", "UTC" if found.tz else None)
    if pa.types.is_integer(found):
        return pa.int64()
    if pa.types.is_floating(found):
        return pa.float64()
    return found if pa.types.is_boolean(found) or pa.types.is_date(found) else pa.string()


def _one(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks)
