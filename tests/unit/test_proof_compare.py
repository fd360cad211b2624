"""From buckets to keys, and from keys to a report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import pytest

from include.cdc.source import Column, SourceTable
from include.cdc.types import carried
from include.proof import compare
from include.proof.compare import FEWEST_BUCKETS, MOST_BUCKETS, bucket_count, differing_keys
from include.proof.dialects import Key
from include.proof.report import LISTED, Comparison, Report
from include.proof.stores import Bucket, Row

TABLE = SourceTable("public.t", (Column("id", "int8", False, carried("int8")),), ("id",))
BUCKETS = 16


class Memory:
    """Rows of (id, hash); a row's bucket is its id modulo the number of buckets."""

    def __init__(self, *rows: tuple[int, int]) -> None:
        self.data, self.listed = rows, []

    def buckets(self) -> dict[int, Bucket]:
        found: dict[int, Bucket] = {}
        for number, value in self.data:
            old = found.get(number % BUCKETS, Bucket(0, 0, 0))
            found[number % BUCKETS] = Bucket(old.rows + 1, old.first + value, old.second + value * value)
        return found

    def listing(self, table: SourceTable, count: int, chosen: Sequence[int]) -> Iterator[tuple[Key, int]]:
        self.listed.append(list(chosen))
        return (((str(number),), value) for number, value in self.data if number % count in chosen)


def found_in(left: Memory, right: Memory) -> tuple[dict[Key, str], Comparison]:
    comparison = Comparison(TABLE.name, "postgres", "iceberg", buckets=BUCKETS)
    return dict(differing_keys(TABLE, comparison, left, right, left.buckets(), right.buckets())), comparison


@pytest.mark.parametrize(
    ("rows", "buckets"), [(-1, FEWEST_BUCKETS), (0, FEWEST_BUCKETS), (336_776, 16_384), (10**12, MOST_BUCKETS)]
)
def test_bucket_count(rows: int, buckets: int) -> None:
    assert bucket_count(rows) == buckets
    assert buckets.bit_count() == 1


def test_equal_stores_are_not_read_again() -> None:
    left, right = Memory((1, 5), (2, 7)), Memory((2, 7), (1, 5))
    found, comparison = found_in(left, right)
    assert not found and not left.listed and not right.listed
    assert (comparison.left_rows, comparison.right_rows, comparison.buckets_differing) == (2, 2, 0)


def test_only_buckets_that_differ_are_read() -> None:
    left, right = Memory((1, 5), (2, 7), (3, 9), (18, 1)), Memory((1, 5), (2, 8), (20, 1), (18, 1))
    found, comparison = found_in(left, right)
    assert found == {("2",): "different", ("3",): "missing", ("20",): "extra"}
    assert left.listed == right.listed == [[2, 3, 4]]
    assert (comparison.buckets_differing, comparison.read_again) == (3, 4)


def test_a_key_that_is_twice_on_one_side() -> None:
    once, twice = Memory((1, 5)), Memory((1, 5), (1, 5))
    assert found_in(once, twice)[0] == {("1",): "extra"}
    assert found_in(twice, once)[0] == {("1",): "missing"}


def test_sums_that_cancel_out_are_seen() -> None:
    """Two rows whose hashes' sum and number are the same differ in the other half."""
    assert found_in(Memory((1, 5), (17, 7)), Memory((1, 6), (17, 6)))[0] == {("1",): "different", ("17",): "different"}


def test_reads_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "ROWS_PER_READ", 4)
    left, right = Memory(*((n, 1) for n in range(32))), Memory(*((n, 2) for n in range(32)))
    found, comparison = found_in(left, right)
    assert len(found) == 32 and comparison.unread == 0
    assert left.listed == [[n, n + 1] for n in range(0, 16, 2)]


def test_what_is_not_read_is_unresolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "ROWS_PER_READ", 4)
    monkeypatch.setattr(compare, "MOST_KEYS", 10)
    found, comparison = found_in(Memory(*((n, 1) for n in range(32))), Memory(*((n, 2) for n in range(32))))
    assert len(found) == 12 and comparison.unread == 20
    assert comparison.state == "different" and comparison.unresolved == 20


def test_report_lists_the_first_keys_and_counts_all() -> None:
    comparison = Comparison("public.t", "postgres", "iceberg")
    for number in range(LISTED + 20):
        comparison.add("different", TABLE, (str(number),), [Row((str(number),))], [Row(("x",))])
    comparison.add("missing", TABLE, ("7000",))
    report = Report("flights", "2026-01-01T00:00:00+00:00", [comparison, Comparison("public.u", "postgres", "iceberg")])
    assert report.unresolved == LISTED + 21
    assert len(comparison.different.rows) == LISTED
    text = report.text()
    assert text.startswith(f"flights: different, {LISTED + 21} unresolved\npublic.t, postgres → iceberg: 1 missing: id=7000; ")
    assert f"{LISTED + 20} different: id=0 (id: '0' → 'x'), " in text and "and 115 more" in text
    assert "public.u" not in text


def test_report_as_json_is_whole() -> None:
    comparison = Comparison("public.t", "postgres", "iceberg", state="equal", left_rows=3, right_rows=3)
    served = Comparison("public.t", "iceberg", "clickhouse", state="not published")
    report = Report("flights", "2026-01-01T00:00:00+00:00", [comparison, served], snapshot_lsn="0/1")
    made = json.loads(json.dumps(report.to_json()))
    assert (made["verdict"], made["unresolved"], made["settled"], made["moving"]) == ("equal", 0, 0, 0)
    assert [c["state"] for c in made["comparisons"]] == ["equal", "not published"]
    assert made["comparisons"][0]["unresolved"] == 0 and made["snapshot_lsn"] == "0/1"


def test_keys_that_never_stood_still_are_told_in_the_verdict() -> None:
    report = Report("flights", "", [Comparison("public.t", "postgres", "iceberg", moving=2)])
    assert report.unresolved == 0 and report.moving == 2
    assert report.verdict != "equal" and "never ceased" in report.verdict
