"""Changelogs of tables without a primary key: inserts minus deletes must be the source's rows, each as often as it is there.

With no key there is no row to read again later. The changes are therefore counted up to the very moment of a snapshot of
PostgreSQL: those that its transactions had committed. Where that differs, a second snapshot says which rows.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from include.cdc.pipelines import BEFORE, LSN, OFFSET, OPERATION, TRANSACTION, Pipeline
from include.cdc.source import SourceTable
from include.platform.endpoints import Endpoints
from include.proof import stores
from include.proof.compare import ROWS_PER_READ
from include.proof.dialects import TRINO, Key
from include.proof.report import Comparison
from include.proof.stores import Bucket, Snapshot, Store


def keyed(table: SourceTable) -> SourceTable:
    """The table with all of its columns for its key, if it has none."""
    return table if table.key else replace(table, key=tuple(column.name for column in table.columns))


def signed(pipeline: Pipeline, table: SourceTable, lsn: str, running: Sequence[int]) -> str:
    """A relation in Trino of the table's rows with ``_n``: 1 for each row that came, -1 for each that went.

    Counts what the source had committed before ``lsn``, but for the transactions ``running`` by then. A change that was
    delivered twice is counted once: changes with one LSN stand together in each delivery, and the longest counts. What
    came before the last first snapshot does not count either.
    """
    high, low = (int(part, 16) for part in lsn.split("/"))
    committed = f"{LSN} < {(high << 32) + low}"
    if running:
        committed += f" AND {TRANSACTION} NOT IN ({', '.join(map(str, running))})"
    log = stores.changelog_relation(pipeline, table)
    one = f"PARTITION BY {TRANSACTION}, {LSN}"
    names = [TRINO.name(column.lake_name) for column in table.columns]
    columns, before = ", ".join(names), ", ".join(f"{BEFORE}.{name} AS {name}" for name in names)
    return f"""(
WITH first AS (
    SELECT min({OFFSET}) AS first FROM {log}
    WHERE {OPERATION} = 'r' AND ({TRANSACTION}, {LSN}) IN (
        SELECT {TRANSACTION}, {LSN} FROM {log} WHERE {OPERATION} = 'r' ORDER BY {OFFSET} DESC LIMIT 1)
), streamed AS (
    SELECT *, {OFFSET} - row_number() OVER ({one} ORDER BY {OFFSET}) AS _delivery
    FROM {log} WHERE {OPERATION} <> 'r' AND {committed}
), counted AS (
    SELECT *, count(*) OVER ({one}, _delivery) AS _length FROM streamed
), ranked AS (
    SELECT *, dense_rank() OVER ({one} ORDER BY _length DESC, _delivery) AS _rank FROM counted
), changes AS (
    SELECT {columns}, {OPERATION}, {BEFORE}, {OFFSET} FROM ranked WHERE _rank = 1
    UNION ALL SELECT {columns}, {OPERATION}, {BEFORE}, {OFFSET} FROM {log} WHERE {OPERATION} = 'r'
), counting AS (
    SELECT changes.* FROM changes CROSS JOIN first WHERE {OFFSET} >= coalesce(first.first, 0)
)
SELECT {columns}, 1 AS _n FROM counting WHERE {OPERATION} <> 'd'
UNION ALL SELECT {columns}, -1 FROM counting WHERE {OPERATION} = 'd'
UNION ALL SELECT {before}, -1 FROM counting WHERE {OPERATION} = 'u') signed"""


def buckets(store: Store, table: SourceTable, relation: str, count: int) -> dict[int, Bucket]:
    """What came minus what went, in ``count`` buckets; those where nothing is left are left out."""
    halves = (half.format(md5="h_row") for half in (TRINO.first_half, TRINO.second_half))
    sums = ", ".join(f"sum(CAST({half} AS decimal(38, 0)) * _n)" for half in halves)
    number = TRINO.bucket.format(hash=TRINO.first_half.format(md5="h_key"), mask=count - 1)
    statement = f"SELECT {number}, sum(_n), {sums} FROM ({TRINO.hashed(table, relation, '_n, ')}) hashed GROUP BY 1"
    found = {int(number): Bucket(int(n), int(a), int(b)) for number, n, a, b in store.read(table, statement)}
    return {number: bucket for number, bucket in found.items() if bucket != Bucket(0, 0, 0)}


def rows(store: Store, table: SourceTable, relation: str, count: int, chosen: Sequence[int]) -> Counter[Key]:
    """How often each row of the ``chosen`` ones of ``count`` buckets is left."""
    texts = [TRINO.text(column) for column in table.columns]
    named = "".join(f"{text} AS k_{n}, " for n, text in enumerate(texts))
    names = ", ".join(f"k_{n}" for n in range(len(texts)))
    number = TRINO.bucket.format(hash=TRINO.first_half.format(md5="h_key"), mask=count - 1)
    statement = (
        f"SELECT {names}, sum(_n) FROM ({TRINO.hashed(table, relation, named + '_n, ')}) hashed "
        f"WHERE {number} IN ({', '.join(map(str, chosen))}) GROUP BY {names}"
    )
    return Counter({tuple(key): int(n) for *key, n in store.read(table, statement)})


def compare(
    pipeline: Pipeline,
    endpoints: Endpoints,
    table: SourceTable,
    comparison: Comparison,
    snapshot: Snapshot,
    of_source: dict[int, Bucket],
    changelog: Store,
    cover: Callable[[list[str]], Any],
    left: Callable[[], float],
) -> None:
    """Compare the source's buckets in ``snapshot``, which the lake covers, with the changelog's; fill in ``comparison``."""
    started = time.monotonic()
    relation = signed(pipeline, table, snapshot.lsn, snapshot.running)
    there = buckets(changelog, table, relation, comparison.buckets)
    comparison.seconds[changelog.name] = round(time.monotonic() - started, 2)
    comparison.left_rows = sum(bucket.rows for bucket in of_source.values())
    comparison.right_rows = sum(bucket.rows for bucket in there.values())
    differing = [n for n in sorted(of_source.keys() | there.keys()) if of_source.get(n) != there.get(n)]
    comparison.buckets_differing = len(differing)
    if differing:
        _name_rows(pipeline, endpoints, table, comparison, differing, of_source, changelog, cover, left)
        comparison.seconds["rows"] = round(time.monotonic() - started - comparison.seconds[changelog.name], 2)


def _name_rows(
    pipeline: Pipeline,
    endpoints: Endpoints,
    table: SourceTable,
    comparison: Comparison,
    differing: list[int],
    of_source: dict[int, Bucket],
    changelog: Store,
    cover: Callable[[list[str]], Any],
    left: Callable[[], float],
) -> None:
    chosen: list[int] = []
    for number in differing:
        size = of_source[number].rows if number in of_source else 1
        if chosen and comparison.read_again + size > ROWS_PER_READ:
            comparison.unread += size
            comparison.state = "different"
        else:
            chosen.append(number)
            comparison.read_again += size
    with stores.snapshot(pipeline, endpoints, 1, left()) as snapshot:
        here = Counter(key for key, _ in snapshot.store.listing(table, comparison.buckets, chosen))
    cover([table.name])
    there = rows(changelog, table, signed(pipeline, table, snapshot.lsn, snapshot.running), comparison.buckets, chosen)
    for key in here.keys() | there.keys():
        difference = there[key] - here[key]
        for _ in range(abs(difference)):
            comparison.add("extra" if difference > 0 else "missing", table, key)
