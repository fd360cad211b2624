"""The proof of one pipeline: every row and every column of its tables, store by store, while the source goes on.

A temporary slot exports a snapshot of PostgreSQL at an LSN. Each table is hashed in it by buckets of its key, and the
snapshot is given back. Once the lake covers that LSN, the mirrors are hashed in the same way. The rows of buckets that
differ are compared one by one as they are by then, and keys that differ are read again until each is settled or a
difference (:mod:`include.proof.settle`). Changelogs are folded and held against PostgreSQL in the same way, those of
tables without a key as :mod:`include.proof.keyless` says. Meanwhile ClickHouse is compared with the lake at what it was
copied from.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from functools import partial
from typing import Any

import psycopg

from include.cdc.coverage import wait_until_covered
from include.cdc.pipelines import Pipeline
from include.cdc.source import SourceTable, describe, quoted
from include.lake.catalog import BRANCH, PUBLISHED
from include.lake.refs import Refs
from include.platform.endpoints import Endpoints
from include.proof import keyless, stores
from include.proof.compare import bucket_count, differing_keys, timed_buckets
from include.proof.report import Comparison, Report
from include.proof.served import Origin, compare_served
from include.proof.settle import Case, settle
from include.proof.stores import Store

READERS = 2
"""Statements that each engine runs at once."""
SNAPSHOT_S = 60
"""How long the snapshot may wait for transactions that write."""

Progress = Callable[[str], Any]


def prove(pipeline: Pipeline, endpoints: Endpoints, timeout_s: float = 600, progress: Progress = lambda text: None) -> Report:
    """Compare every row and column of the pipeline's tables in PostgreSQL, Iceberg and, where served, ClickHouse.

    A comparison's right store is ``iceberg`` for a mirror, ``changelog`` for a folded changelog, or ``clickhouse``.

    ``report.unresolved == 0`` is the verdict; differences are no errors. Raises
    :class:`include.cdc.coverage.NotCovered` when the lake does not catch up, :class:`stores.ProofError` when a store
    cannot be read. Changes nothing but the heartbeat's row.
    """
    started = time.monotonic()
    deadline = started + timeout_s
    report = Report(pipeline.source, datetime.now(UTC).isoformat(timespec="seconds"))

    def left() -> float:
        return max(deadline - time.monotonic(), 1)

    progress = _changes_of(progress)

    with psycopg.connect(endpoints[pipeline.connection].conninfo, autocommit=True) as connection:
        tables = describe(connection, pipeline)
        counts = {table.name: bucket_count(_estimate(connection, table)) for table in tables}
        report.versions["postgres"] = connection.execute("SHOW server_version").fetchone()[0]
    source = stores.postgres(pipeline, endpoints, left())
    lake, changelog = stores.iceberg(pipeline, endpoints, left()), stores.changelog(pipeline, endpoints, left())
    report.versions["trino"] = next(iter(lake.query("SELECT version()")))[0]
    largest_first = sorted(map(keyless.keyed, tables), key=lambda table: -counts[table.name])
    keys = {table.name: table.key for table in tables}
    copies = [
        (table, store)
        for table in largest_first
        for store, kept in ((lake, pipeline.tables[table.name].mirrored), (changelog, pipeline.tables[table.name].logged))
        if kept
    ]

    def cover(names: list[str]) -> dict[str, Any]:
        return wait_until_covered(pipeline, endpoints, names, left(), progress)

    def covered_lsn(names: list[str]) -> int:
        return cover(names)["lsn"]

    with ThreadPoolExecutor(READERS) as postgres, ThreadPoolExecutor(READERS) as trino, ThreadPoolExecutor(2) as other:
        with stores.snapshot(pipeline, endpoints, READERS, min(SNAPSHOT_S, left())) as snapshot:
            report.snapshot_lsn = snapshot.lsn
            progress(f"snapshot of {pipeline.source} at {snapshot.lsn}")
            covering = other.submit(cover, list(pipeline.tables))
            serving = other.submit(_served, pipeline, endpoints, tables, counts, deadline, progress)
            hashing = {t.name: postgres.submit(timed_buckets, snapshot.store, t, counts[t.name]) for t in largest_first}
            of_source = {name: future.result() for name, future in hashing.items()}
        report.seconds["snapshot_closed"] = _since(started)
        report.coverage = covering.result()
        report.seconds["covered"] = _since(started)
        progress(f"the lake covers it after {report.coverage['seconds']} s")
        report.nessie[BRANCH] = Refs(endpoints["shudl_nessie"].url).hash(BRANCH)

        def case_of(table: SourceTable, store: Store) -> Case:
            comparison = Comparison(table.name, source.name, store.name, buckets=counts[table.name])
            here, comparison.seconds[source.name] = of_source[table.name]
            if not keys[table.name]:
                keyless.compare(pipeline, endpoints, table, comparison, snapshot, here, store, cover, left)
                return Case(table, comparison, {})
            there, comparison.seconds[store.name] = timed_buckets(store, table, comparison.buckets)
            return Case(table, comparison, dict(differing_keys(table, comparison, source, store, here, there)))

        cases: dict[str, list[Case]] = {lake.name: [], changelog.name: []}
        for future in as_completed([trino.submit(case_of, *copy) for copy in copies]):
            case = future.result()
            cases[case.comparison.right].append(case)
            progress(
                f"{case.table.name}: {case.comparison.left_rows:,} rows compared with {case.comparison.right}, "
                f"{len(case.keys):,} differ so far"
            )
        report.seconds["compared"] = _since(started)
        report.rounds = max(settle(cases[store.name], source, store, covered_lsn, progress) for store in (lake, changelog))
        served, origin, version = serving.result()
    made = {(case.table.name, name): case.comparison for name, found in cases.items() for case in found}
    report.comparisons = [*(made[t.name, name] for name in cases for t in tables if (t.name, name) in made), *served]
    report.nessie[PUBLISHED] = origin.commit
    if version:
        report.versions["clickhouse"] = version
    report.seconds["total"] = _since(started)
    return report


def _served(
    pipeline: Pipeline,
    endpoints: Endpoints,
    tables: list[SourceTable],
    counts: dict[str, int],
    deadline: float,
    progress: Progress,
) -> tuple[list[Comparison], Origin, str]:
    """The comparisons of what ClickHouse serves, the commit it is of, ClickHouse's version where anything is served."""
    wanted = [table for table in tables if pipeline.tables[table.name].serve]
    left = max(deadline - time.monotonic(), 1)
    lake = stores.iceberg(pipeline, endpoints, left, catalog=PUBLISHED)
    clickhouse = stores.served(pipeline, endpoints, left)
    origin_now = partial(Origin.read, pipeline, endpoints)
    comparisons, origin = compare_served(wanted, counts, lake, clickhouse, origin_now, deadline, progress)
    if not origin.copies:
        return comparisons, origin, ""
    progress(f"ClickHouse compared with commit {str(origin.commit)[:12]}")
    return comparisons, origin, next(iter(clickhouse.query("SELECT version()")))[0]


def _estimate(connection: psycopg.Connection, table: SourceTable) -> float:
    """About how many rows the table, with its partitions, has: as last analysed, or by its size."""
    return connection.execute(
        "SELECT sum(greatest(reltuples, pg_relation_size(oid) / 200)) FROM pg_class "
        "WHERE oid = to_regclass(%(table)s) OR oid IN (SELECT relid FROM pg_partition_tree(to_regclass(%(table)s)) WHERE isleaf)",
        {"table": quoted(table.name)},
    ).fetchone()[0]


def _changes_of(progress: Progress) -> Progress:
    """Passes on what is not what was said last."""
    said: list[str] = [""]

    def tell(text: str) -> None:
        if text != said[0]:
            said[0] = text
            progress(text)

    return tell


def _since(started: float) -> float:
    return round(time.monotonic() - started, 2)
