"""Lines of landed files that were dead letters, tried again."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from pyiceberg.expressions import And, EqualTo, In
from pyiceberg.table import Table

from include.ingest.deadletters import DeadLetter
from include.ingest.files_csv import Csv, Parsed
from include.ingest.files_json import Json
from include.ingest.files_records import RAW_KEPT, Block
from include.ingest.landing_options import KIND, OWN, Folder, read_folders
from include.ingest.landing_table import (
    FOLDER,
    Landed,
    Writers,
    Written,
    append,
    arrow_types,
    landed,
    ledger,
    now,
    transaction_of,
    widen,
)
from include.lake.catalog import Lake, existing
from include.platform.endpoints import Endpoints


def replay(endpoints: Endpoints, target: str, letters: Iterable[DeadLetter], run: str) -> set[str]:
    """Make rows of ``target`` of those ``letters`` that are read now, each once; the ids of what is settled.

    Settled is also what is a row already, and what belongs to a version of a file that another has replaced. The lines of
    a file that was not loaded stay as they are: they come with the file.
    """
    catalog = Lake.from_endpoints(endpoints).pyiceberg()
    table = existing(catalog, target)
    if table is None:
        return set()
    folder = table.metadata.properties.get(FOLDER, "")
    options = read_folders()[0].get(folder) or Folder(kind=KIND, source=folder)
    lines = landed(ledger(catalog), target)
    by_file: dict[Landed, list[DeadLetter]] = defaultdict(list)
    settled: set[str] = set()
    for letter in letters:
        line = lines.get(letter.origin)
        if line is None or line.table_uuid != str(table.metadata.table_uuid):
            continue
        if line.etag != letter.part:
            if options.versions == "newest":
                settled.add(letter.id)
        elif len(letter.raw) < RAW_KEPT:
            by_file[line].append(letter)
    for line, some in by_file.items():
        settled |= _replay(catalog, target, options, line, some)
    return settled


def _replay(catalog: Any, target: str, options: Folder, line: Landed, letters: list[DeadLetter]) -> set[str]:
    """The letters of one file."""
    settled: set[str] = set()

    def make(table: Table) -> list[Written]:
        """The rows that the table has not; what it has is asked in the very snapshot that the commit asserts."""
        settled.clear()
        wanted = {letter.position: letter for letter in letters}
        mine = And(EqualTo("_file", line.path), EqualTo("_version", line.version), In("_line", set(wanted)))
        there = set(table.scan(mine, selected_fields=("_line",)).to_arrow()["_line"].to_pylist())
        settled.update(letter.id for position, letter in wanted.items() if position in there)
        parsed = _parse(line, options, arrow_types(table), [wanted[n] for n in sorted(wanted) if n not in there])
        if parsed.table is None:
            return []
        settled.update(wanted[position].id for position in parsed.table["_line"].to_pylist())
        constants = {
            "_file": pa.scalar(line.path),
            "_version": pa.scalar(line.version, pa.int32()),
            "_loaded_at": pa.scalar(now(), pa.timestamp("us", "UTC")),
        }
        columns = pa.schema([column.remove_metadata() for column in parsed.table.schema if column.name not in OWN])
        writers = Writers(table, widen(transaction_of(table), columns), constants)
        writers.write(parsed.table)
        return [Written(line, columns, table, writers.close())]

    append(catalog, target, make)
    return settled


def _parse(line: Landed, options: Folder, known: Mapping[str, pa.DataType], letters: list[DeadLetter]) -> Parsed:
    """``letters`` of one file, read as the file was, with the options and types as they are now."""
    if not letters:
        return Parsed(None, [], 0)
    read_as = json.loads(line.read_as)
    fixed = options.arrow_types()
    columns = {name: known.get(name) or fixed.get(name) or pa.string() for name in read_as["columns"]}
    data = b"".join(letter.raw + b"\n" for letter in letters)
    ends = np.cumsum([len(letter.raw) + 1 for letter in letters])
    block = Block(data, np.concatenate(([0], ends[:-1])), ends, np.array([letter.position for letter in letters]))
    if read_as["format"] == "csv":
        delimiter = options.delimiter or read_as["delimiter"]
        return Csv(delimiter, options.encoding, options.nulls, columns).parse(block)
    return Json(options.encoding if read_as["format"] == "jsonl" else "utf-8", columns).parse(block)
