"""From two stores to the keys that differ: buckets first, then the rows of the buckets that differ."""

from __future__ import annotations

import time
from collections.abc import Iterator

from include.cdc.source import SourceTable
from include.proof.dialects import Key
from include.proof.report import Comparison, Kind
from include.proof.stores import Bucket, Store

ROWS_PER_BUCKET = 32
"""Few, so that rows changing while the proof runs make few others be read one by one."""
FEWEST_BUCKETS, MOST_BUCKETS = 256, 1 << 18
BUCKETS_PER_READ = 10_000
ROWS_PER_READ = 200_000
MOST_KEYS = 50_000
"""Keys of one table that are looked at one by one; past these, whole buckets are counted as unread."""

Buckets = dict[int, Bucket]


def bucket_count(rows: float) -> int:
    """A power of two for a table of about ``rows`` rows."""
    wanted = 1 << max(int(rows / ROWS_PER_BUCKET), 1).bit_length()
    return min(max(wanted, FEWEST_BUCKETS), MOST_BUCKETS)


def timed_buckets(store: Store, table: SourceTable, count: int) -> tuple[Buckets, float]:
    """The buckets, and the seconds that they took."""
    started = time.monotonic()
    return store.buckets(table, count), round(time.monotonic() - started, 2)


def differing_keys(
    table: SourceTable, comparison: Comparison, left: Store, right: Store, left_buckets: Buckets, right_buckets: Buckets
) -> dict[Key, Kind]:
    """The keys of ``table`` that differ in the buckets that do, read from the stores as they are now.

    Fills in the comparison's counts. At most :data:`MOST_KEYS`, give or take one read.
    """
    started = time.monotonic()
    comparison.left_rows = sum(bucket.rows for bucket in left_buckets.values())
    comparison.right_rows = sum(bucket.rows for bucket in right_buckets.values())
    rows = {
        number: max(b.rows for b in (left_buckets.get(number), right_buckets.get(number)) if b)
        for number in sorted(left_buckets.keys() | right_buckets.keys())
        if left_buckets.get(number) != right_buckets.get(number)
    }
    comparison.buckets_differing = len(rows)
    found: dict[Key, Kind] = {}
    for chosen in _reads(rows):
        size = sum(rows[number] for number in chosen)
        if len(found) >= MOST_KEYS:
            comparison.unread += size
            comparison.state = "different"
            continue
        comparison.read_again += size
        hashes: dict[Key, int] = {}
        for key, value in left.listing(table, comparison.buckets, chosen):
            if key in hashes:
                found[key] = "missing"  # the second row of a key
            hashes[key] = value
        for key, value in right.listing(table, comparison.buckets, chosen):
            if key not in hashes:
                found[key] = "extra"  # also the second row of a key
            elif hashes.pop(key) != value:
                found[key] = "different"
        found.update(dict.fromkeys(hashes, "missing"))
    if rows:
        comparison.seconds["rows"] = round(time.monotonic() - started, 2)
    return found


def _reads(rows: dict[int, int]) -> Iterator[list[int]]:
    """Bucket numbers in groups of bounded size."""
    chosen: list[int] = []
    size = 0
    for number, count in rows.items():
        if chosen and (size + count > ROWS_PER_READ or len(chosen) == BUCKETS_PER_READ):
            yield chosen
            chosen, size = [], 0
        chosen.append(number)
        size += count
    if chosen:
        yield chosen
