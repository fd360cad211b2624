"""When how many events are due."""

from __future__ import annotations

import math
from dataclasses import dataclass

TRANSACTION_S = 0.05
"""A transaction holds the events of this long, at least one."""
MAX_EVENTS = 500
"""The largest transaction: when there is no rate, and when catching up."""


@dataclass(frozen=True)
class Pace:
    """``rate`` events a second, counted from the start of a run; None or 0: as many as can be done.

    Event ``n`` of the run (from 0) is due ``n / rate`` seconds after its start, so a run that was held up catches up.
    """

    rate: float | None

    def __post_init__(self) -> None:
        if self.rate is not None and not (math.isfinite(self.rate) and self.rate >= 0):
            raise ValueError(f"rate {self.rate}: must be a number of changes a second, or 0 for as many as can be done")

    def wait_s(self, done: int, elapsed_s: float) -> float:
        """Seconds until the next event is due; 0 when it is."""
        return max(0.0, done / self.rate - elapsed_s) if self.rate else 0.0

    def behind_s(self, done: int, elapsed_s: float) -> float:
        """Seconds since the next event was due."""
        return max(0.0, elapsed_s - done / self.rate) if self.rate else 0.0

    def transaction_size(self, done: int, elapsed_s: float) -> int:
        """Events for the next transaction once the next one is due: from 1 to :data:`MAX_EVENTS`."""
        if not self.rate:
            return MAX_EVENTS
        usual = round(self.rate * TRANSACTION_S)
        overdue = math.floor(elapsed_s * self.rate) - done
        return max(1, min(max(usual, overdue), MAX_EVENTS))
