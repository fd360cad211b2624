"""The tables in ClickHouse against the lake at the commit that they were copied from."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx

from include.cdc.pipelines import COMMITTED_AT, LSN, Pipeline
from include.cdc.source import Column, SourceTable
from include.cdc.types import carried
from include.lake.catalog import PUBLISHED
from include.lake.refs import Refs
from include.platform.endpoints import Endpoints
from include.proof.compare import differing_keys, timed_buckets
from include.proof.dialects import Key
from include.proof.report import KINDS, LISTED, Comparison, Kind
from include.proof.stores import ProofError, Store
from include.serving.clickhouse import connect
from include.serving.publish import published

PUBLICATION_S = 60
"""How long exchanging the tables and moving the branch may take."""


@dataclass(frozen=True)
class Origin:
    """The commit of branch ``published`` (None: no such branch), and of each served source table its copy's commit."""

    commit: str | None
    copies: Mapping[str, str]

    @classmethod
    def read(cls, pipeline: Pipeline, endpoints: Endpoints) -> Origin:
        try:
            commit = Refs(endpoints["shudl_nessie"].url).hash(PUBLISHED)
        except httpx.HTTPStatusError as error:
            if error.response.status_code != 404:
                raise
            return cls(None, {})
        with connect(endpoints) as client:
            there = published(client)
        names = {table: pipeline.iceberg_name(table) for table, kept in pipeline.tables.items() if kept.serve}
        return cls(commit, {table: there[name].nessie_hash for table, name in names.items() if name in there})

    @property
    def strange(self) -> str:
        """What does not agree, in words."""
        found = [f"{table} is a copy of commit {copied[:12]}" for table, copied in self.copies.items() if copied != self.commit]
        return f"{', '.join(found)}, but branch {PUBLISHED} is at {str(self.commit)[:12]}" if found else ""


def whole(table: SourceTable) -> SourceTable:
    """The mirror of a table as ClickHouse can show it: with the columns that only the lake has."""
    added = (Column(LSN, "int8", True, carried("int8")), Column(COMMITTED_AT, "timestamptz", True, carried("timestamptz")))
    served = tuple(replace(column, carried=column.carried.served()) for column in table.columns)
    return replace(table, columns=served + added)


def compare_served(
    tables: list[SourceTable],
    counts: Mapping[str, int],
    lake: Store,
    served: Store,
    origin: Callable[[], Origin],
    deadline: float,
    progress: Callable[[str], Any],
) -> tuple[list[Comparison], Origin]:
    """Compare each table's copy with the mirror at branch ``published``, in ``counts[table]`` buckets.

    Begins anew when a publication came in between. Raises :class:`ProofError` when branch and copies do not agree
    within :data:`PUBLICATION_S`, or change again and again until ``deadline`` (of ``time.monotonic()``).
    """
    while True:
        before = _agreed(origin, deadline)
        comparisons = [
            _compare(whole(table), counts[table.name], lake, served)
            if table.name in before.copies
            else Comparison(table.name, lake.name, served.name, state="not published")
            for table in tables
        ]
        if origin() == before:
            return comparisons, before
        progress("a publication came in between: comparing what is served again")
        if time.monotonic() > deadline:
            raise ProofError("what is served kept changing while it was compared; run the proof again")


def _agreed(origin: Callable[[], Origin], deadline: float) -> Origin:
    give_up = min(deadline, time.monotonic() + PUBLICATION_S)
    while (found := origin()).strange:
        if time.monotonic() > give_up:
            raise ProofError(f"{found.strange}; run the DAG that publishes again")
        time.sleep(0.5)
    return found


def _compare(table: SourceTable, buckets: int, lake: Store, served: Store) -> Comparison:
    comparison = Comparison(table.name, lake.name, served.name, buckets=buckets)
    left, comparison.seconds[lake.name] = timed_buckets(lake, table, buckets)
    right, comparison.seconds[served.name] = timed_buckets(served, table, buckets)
    found = differing_keys(table, comparison, lake, served, left, right)
    if comparison.buckets_differing and not found:
        raise ProofError(f"{table.name}: {comparison.buckets_differing} buckets of {served.name} differ, but no row does")
    listed = [key for kind in KINDS for key in _first(found, kind)]
    left_rows, right_rows = lake.rows(table, listed), served.rows(table, listed)
    for key, kind in found.items():
        comparison.add(kind, table, key, left_rows.get(key, ()), right_rows.get(key, ()))
    return comparison


def _first(found: dict[Key, Kind], kind: Kind) -> list[Key]:
    return [key for key, other in found.items() if other == kind][:LISTED]
