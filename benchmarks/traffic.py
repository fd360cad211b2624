"""The flights' replay as load."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from include.demo.flights import position, replay
from include.demo.state import DemoError
from include.platform.endpoints import Endpoints

FROM_DAY_LEFT = 50_000
"""Changes that must be left to be replayed before a benchmark begins."""


@contextmanager
def traffic(endpoints: Endpoints, rate: float) -> Iterator[None]:
    """Replay at ``rate`` changes a second while the block runs.

    Raises :class:`DemoError` when the flights are not loaded, or too few changes are left.
    """
    conninfo = endpoints["flights_db"].conninfo
    now = position(conninfo)
    if (left := now.total_events - now.event_number) < FROM_DAY_LEFT:
        raise DemoError(f"only {left:,} changes are left to replay; run Airflow's DAG demo_load with reset, then cdc_flights")
    stop = threading.Event()
    failure: list[BaseException] = []

    def run() -> None:
        try:
            replay(conninfo, rate, stop=stop.is_set)
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failure:
        raise failure[0]
