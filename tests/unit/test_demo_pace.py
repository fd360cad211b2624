"""The schedule of a replay, computed: no clock, no database."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from include.demo.pace import MAX_EVENTS, TRANSACTION_S, Pace
from include.demo.replay import last_instant


def run(pace: Pace, seconds: float, transaction_s: float = 0.0, pause: tuple[float, float] = (0, 0)) -> list[int]:
    """Sizes of the transactions of a replay whose clock is simulated; each transaction takes ``transaction_s``."""
    clock, done, sizes = 0.0, 0, []
    while clock < seconds:
        if pause[0] <= clock < pause[1]:
            clock = pause[1]
        if wait := pace.wait_s(done, clock):
            clock += wait
            continue
        sizes.append(pace.transaction_size(done, clock))
        done += sizes[-1]
        clock += transaction_s
    return sizes


@pytest.mark.parametrize("rate", [0.5, 1, 7, 100, 1000, 5000])
def test_rate_is_kept_in_transactions_of_moderate_size(rate: float) -> None:
    sizes = run(Pace(rate), 20)
    assert sum(sizes) == pytest.approx(20 * rate, abs=max(1, rate * TRANSACTION_S) + 1)
    assert max(sizes) <= max(1, rate * TRANSACTION_S + 1)


def test_rate_is_kept_although_transactions_take_time() -> None:
    assert sum(run(Pace(1000), 20, transaction_s=0.03)) == pytest.approx(20_000, abs=100)


def test_a_run_that_was_held_up_catches_up_in_bounded_transactions() -> None:
    sizes = run(Pace(1000), 20, transaction_s=0.01, pause=(5, 10))
    assert sum(sizes) == pytest.approx(20_000, abs=100)
    assert max(sizes) == MAX_EVENTS


def test_a_rate_that_is_too_high_is_told() -> None:
    pace = Pace(5000)
    assert pace.behind_s(done=5000, elapsed_s=1.0) == 0
    assert pace.behind_s(done=5000, elapsed_s=4.0) == pytest.approx(3.0)
    assert pace.wait_s(done=5000, elapsed_s=4.0) == 0


@pytest.mark.parametrize("rate", [None, 0])
def test_without_a_rate_nothing_waits(rate: float | None) -> None:
    pace = Pace(rate)
    assert (pace.wait_s(10**9, 0.0), pace.behind_s(0, 10**9), pace.transaction_size(0, 0.0)) == (0, 0, MAX_EVENTS)


@pytest.mark.parametrize("rate", [-1, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        Pace(rate)


def test_until_is_inclusive() -> None:
    assert last_instant(date(2013, 12, 30)) == datetime(2013, 12, 31, 4, 59, 59, 999999, tzinfo=UTC)
    assert last_instant(date(2013, 7, 4)) == datetime(2013, 7, 5, 3, 59, 59, 999999, tzinfo=UTC)
    assert last_instant(datetime(2013, 12, 30, 12, 0)) == datetime(2013, 12, 30, 17, 0, tzinfo=UTC)
    assert last_instant(datetime(2013, 12, 30, 12, 0, tzinfo=UTC)) == datetime(2013, 12, 30, 12, 0, tzinfo=UTC)
