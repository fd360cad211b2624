"""What rounds of reading make of keys that differ, on stores whose every state is written down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from include.cdc.coverage import NotCovered
from include.cdc.source import Column, SourceTable
from include.cdc.types import carried
from include.proof.dialects import Key
from include.proof.report import Comparison
from include.proof.settle import ROUNDS, Case, judge, settle
from include.proof.stores import Row

COLUMNS = (Column("id", "int8", False, carried("int8")), Column("v", "text", True, carried("text")))
TABLE = SourceTable("public.t", COLUMNS, ("id",))
KEY = ("1",)
LSN = 50


def row(value: str | None, mark: int | None = None) -> Row:
    return Row(("1", value), mark)


class Script:
    """A store whose n-th read finds the n-th of the states; the last one for ever."""

    def __init__(self, *states: Sequence[Row]) -> None:
        self.states, self.reads = states, 0

    def rows(self, table: SourceTable, keys: Sequence[Key]) -> dict[Key, list[Row]]:
        state = self.states[min(self.reads, len(self.states) - 1)]
        self.reads += 1
        return {KEY: list(state)} if state else {}


def run(source: Any, lake: Any, cover: Callable[[list[str]], int] = lambda tables: LSN) -> tuple[Comparison, int]:
    """``source`` is read before and after the lake in each round, at :data:`LSN`."""
    comparison = Comparison(TABLE.name, "postgres", "iceberg")
    rounds = settle([Case(TABLE, comparison, {KEY: "different"})], source, lake, cover, lambda text: None)
    return comparison, rounds


@pytest.mark.parametrize(
    ("before", "lake", "after", "judgement"),
    [
        (row("a", 1), [row("a")], row("a", 1), "settled"),
        (row("a", 1), [row("a")], row("b", 2), "settled"),
        (row("a", 1), [row("b")], row("b", 2), "settled"),
        (None, [], None, "settled"),
        (row("a", 1), [], None, "settled"),
        (None, [], row("a", 1), "settled"),
        (row("a", 1), [row("b")], row("c", 3), "moving"),
        (row("a", 1), [row("b")], row("a", 3), "moving"),
        (row("a", 1), [row("b")], row("a", 1), "different"),
        (row("", 1), [row(None)], row("", 1), "different"),
        (row("a", 1), [], row("a", 1), "missing"),
        (None, [row("a")], None, "extra"),
        (row("a", 1), [row("a"), row("a")], row("a", 1), "extra"),
    ],
)
def test_one_round(before: Row | None, lake: list[Row], after: Row | None, judgement: str) -> None:
    assert judge(before, lake, after) == judgement


def test_a_row_in_flight_settles() -> None:
    comparison, rounds = run(Script([row("b", 2)]), Script([row("b")]))
    assert (comparison.settled, comparison.unresolved, rounds) == (1, 0, 1)


def test_a_row_that_came_and_went_between_two_reads_is_no_difference() -> None:
    """The lake shows it for a moment; by the next round it has heard of the delete."""
    comparison, rounds = run(Script([]), Script([row("a")], []))
    assert (comparison.settled, comparison.unresolved, rounds) == (1, 0, 2)


def test_a_row_that_comes_and_goes_between_all_reads_is_no_difference() -> None:
    """The source never has it when it is read; in the lake it has been written since."""
    comparison, rounds = run(Script([]), Script([row("a", LSN + 1)], [row("a", LSN + 2)]))
    assert (comparison.moving, comparison.unresolved, rounds) == (1, 0, ROUNDS)


def test_a_row_that_the_source_deleted_before_is_extra() -> None:
    comparison, rounds = run(Script([]), Script([row("a", LSN - 1)]))
    assert (comparison.extra.count, comparison.moving, rounds) == (1, 0, 2)


@pytest.mark.parametrize(
    ("source", "lake", "kind"),
    [([row("a", 1)], [row("b")], "different"), ([row("a", 1)], [], "missing"), ([], [row("a")], "extra")],
)
def test_a_difference_counts_when_two_rounds_find_it(source: list[Row], lake: list[Row], kind: str) -> None:
    comparison, rounds = run(Script(source), Script(lake))
    assert rounds == 2
    assert comparison.state == "different" and comparison.unresolved == 1
    assert getattr(comparison, kind).count == 1
    assert getattr(comparison, kind).rows[0]["key"] == {"id": "1"}


def test_both_values_are_told() -> None:
    comparison, _ = run(Script([row("a", 1)]), Script([row(None)]))
    assert comparison.different.rows == [{"key": {"id": "1"}, "columns": {"v": {"postgres": "a", "iceberg": None}}}]
    assert comparison.text() == "public.t, postgres → iceberg: 1 different: id=1 (v: 'a' → NULL)"


def test_a_row_twice_is_told() -> None:
    comparison, _ = run(Script([row("a", 1)]), Script([row("a"), row("a")]))
    assert comparison.extra.rows == [{"key": {"id": "1"}, "rows": 2}]


def test_a_row_that_never_stands_still_is_no_difference() -> None:
    versions = [[row(str(n), n)] for n in range(99)]
    comparison, rounds = run(Script(*versions), Script([row("x")]))
    assert (comparison.moving, comparison.unresolved, rounds) == (1, 0, ROUNDS)


def test_a_wrong_row_that_is_written_again_and_stays_wrong_is_found() -> None:
    source = Script([row("a", 1)], [row("a", 2)], [row("a", 2)])
    comparison, rounds = run(source, Script([row("x")]))
    assert (comparison.different.count, comparison.moving, rounds) == (1, 0, 3)


def test_nothing_is_settled_when_the_lake_stands_still() -> None:
    def stuck(tables: list[str]) -> int:
        raise NotCovered("after 1 s the lake lacks changes of: public.t")

    comparison, rounds = run(Script([row("a", 1)]), Script([row("a")]), stuck)
    assert (comparison.unresolved, comparison.settled, rounds) == (1, 0, 1)
    assert "the lake lacks changes of: public.t" in comparison.text()


def test_only_tables_with_open_keys_are_waited_for() -> None:
    waited: list[list[str]] = []

    def cover(tables: list[str]) -> int:
        waited.append(tables)
        return LSN

    run(Script([row("a", 1)]), Script([row("b")], [row("a")]), cover)
    assert waited == [["public.t"], ["public.t"]]
