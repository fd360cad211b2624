"""Which differences are real, while the source goes on.

A round reads the keys that differ from the source, waits until the lake covers that moment, reads them from the lake,
and again from the source. A key is settled when the lake has one of the source's two states. It is moving when those
two are not the same version of the row, or when the source has none and the lake one that was written since. Otherwise
it is a suspect; a suspect that the next round finds unchanged on
both sides is a difference: a row that was in flight in the first round has landed in the second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from include.cdc.coverage import NotCovered
from include.cdc.source import SourceTable
from include.proof.dialects import Key
from include.proof.report import Comparison, Kind
from include.proof.stores import KEYS_PER_READ, Row, Store

ROUNDS = 4

Judgement = Kind | Literal["settled", "moving"]


@dataclass
class Case:
    """One table's keys that differ; each with what the last round made of it."""

    table: SourceTable
    comparison: Comparison
    keys: dict[Key, Judgement]
    suspects: dict[Key, int] = field(default_factory=dict)
    """Key → a hash of what the last round saw of it on both sides."""


def judge(before: Row | None, lake: Sequence[Row], after: Row | None) -> Judgement:
    """What one round says of one key."""
    texts = [row.texts for row in lake]
    if texts in ([row.texts] if row else [] for row in (before, after)):
        return "settled"
    if before != after:
        return "moving"
    if before is None or len(lake) > 1:
        return "extra"
    return "different" if lake else "missing"


def settle(
    cases: list[Case], source: Store, lake: Store, cover: Callable[[list[str]], int], progress: Callable[[str], object]
) -> int:
    """Read the cases' keys again until each is settled or a difference; return the number of rounds.

    ``cover`` waits until the lake holds what the source had committed up to an LSN, for the tables named, and returns
    the LSN, or raises :class:`NotCovered`; then every key left counts as a difference. After :data:`ROUNDS` rounds
    suspects do, keys that move do not.
    """
    cases = [case for case in cases if case.keys]
    rounds = 0
    while any(case.keys for case in cases) and rounds < ROUNDS:
        cases = [case for case in cases if case.keys]
        rounds += 1
        progress(f"round {rounds}: reading {sum(len(case.keys) for case in cases):,} keys again")
        before = {case.table.name: source.rows(case.table, list(case.keys)) for case in cases}
        try:
            lsn = cover([case.table.name for case in cases])
        except NotCovered as error:
            for case in cases:
                case.comparison.note = f"the lake does not follow: {error}"
            break
        for case in cases:
            _round(case, source, lake, before[case.table.name], lsn)
    for case in cases:
        for key, judgement in case.keys.items():
            if judgement == "moving" and not case.comparison.note:
                case.comparison.moving += 1
            else:
                case.comparison.add("different" if judgement == "moving" else judgement, case.table, key)
    return rounds


def _round(case: Case, source: Store, lake: Store, before: dict[Key, list[Row]], lsn: int) -> None:
    keys = list(case.keys)
    for start in range(0, len(keys), KEYS_PER_READ):
        chunk = keys[start : start + KEYS_PER_READ]
        found, after = lake.rows(case.table, chunk), source.rows(case.table, chunk)
        for key in chunk:
            left, right = after.get(key, []), found.get(key, [])
            judgement = judge(_only(before.get(key)), right, _only(left))
            if judgement == "extra" and not left and any(row.mark is not None and row.mark > lsn for row in right):
                judgement = "moving"
            seen = hash((tuple(left), tuple(right)))
            if judgement == "settled":
                case.comparison.settled += 1
                del case.keys[key]
            elif judgement != "moving" and case.suspects.get(key) == seen:
                case.comparison.add(judgement, case.table, key, left, right)
                del case.keys[key]
            else:
                case.keys[key] = judgement
                case.suspects[key] = seen if judgement != "moving" else 0


def _only(rows: Sequence[Row] | None) -> Row | None:
    return rows[0] if rows else None
