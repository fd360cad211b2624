"""Endless changes to the flights database, over crashes of PostgreSQL, with a count of what it acknowledged."""

from __future__ import annotations

import threading
import time
from collections import deque
from itertools import count
from random import Random
from types import TracebackType
from typing import Self

import psycopg

from include.demo.pace import Pace

BATCH = 25
"""Changes of a transaction: updates of flights, and as many planes inserted as deleted."""
INSERTS = 3
RECONNECT_S = 0.2
_UPDATE = "UPDATE public.flights SET air_time = coalesce(air_time, 0) + 1 WHERE id = ANY(%s)"
_INSERT = (
    "INSERT INTO public.planes SELECT tailnum, 2013, 'Fixed wing', 'ShuDL', 'Churn', 2, 150, NULL, 'Turbo-fan' "
    "FROM unnest(%s::text[]) AS tailnum"
)
_DELETE = "DELETE FROM public.planes WHERE tailnum = ANY(%s)"


class Churn:
    """Changes rows at ``rate`` changes a second while the block runs; takes its planes away at the end.

    ``acknowledged`` counts the changes whose commit PostgreSQL has confirmed; ``present`` holds the planes that must
    be there by what was confirmed. A transaction whose end is unknown, as the connection broke, is looked up.
    """

    def __init__(self, conninfo: str, rate: float) -> None:
        self.conninfo, self.pace = conninfo, Pace(rate)
        self.acknowledged = 0
        self.present: deque[str] = deque()
        self.reconnects = 0
        self._numbers = count()
        self._random = Random(2013)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        with psycopg.connect(self.conninfo) as connection:
            (self._flights,) = connection.execute("SELECT max(id) FROM public.flights").fetchone()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(60)
        with psycopg.connect(self.conninfo) as connection:
            connection.execute(_DELETE, (list(self.present),))
        if self._failure and not error:
            raise self._failure

    def check(self) -> None:
        """Every plane that was acknowledged is there, and none that was taken away. Not while it runs."""
        with psycopg.connect(self.conninfo) as connection:
            there = {row[0] for row in connection.execute("SELECT tailnum FROM public.planes WHERE model = 'Churn'")}
        assert there == set(self.present), f"{len(there)} planes, {len(self.present)} acknowledged"

    def stop(self) -> None:
        """End the changes; the planes stay until the block ends."""
        self._stop.set()
        self._thread.join(60)

    def _run(self) -> None:
        started = time.monotonic()
        connection: psycopg.Connection | None = None
        try:
            while not self._stop.is_set():
                if wait := self.pace.wait_s(self.acknowledged, time.monotonic() - started):
                    self._stop.wait(min(wait, 0.1))
                    continue
                new = [f"X{next(self._numbers):08d}" for _ in range(INSERTS)]
                old = [self.present[n] for n in range(INSERTS)] if len(self.present) > 200 else []
                ids = [self._random.randint(1, self._flights) for _ in range(BATCH - INSERTS - len(old))]
                try:
                    if connection is None:
                        connection = psycopg.connect(self.conninfo)
                    with connection.transaction():
                        connection.execute(_UPDATE, (ids,))
                        connection.execute(_INSERT, (new,))
                        connection.execute(_DELETE, (old,))
                    done = True
                except psycopg.OperationalError:
                    connection = self._reconnected()
                    if connection is None:
                        return
                    row = connection.execute("SELECT 1 FROM public.planes WHERE tailnum = %s", (new[0],)).fetchone()
                    connection.commit()
                    done = row is not None
                if done:
                    self.acknowledged += BATCH
                    self.present.extend(new)
                    for _ in old:
                        self.present.popleft()
        except BaseException as error:
            self._failure = error
        finally:
            if connection:
                connection.close()

    def _reconnected(self) -> psycopg.Connection | None:
        """A new connection; None when the block ended first."""
        self.reconnects += 1
        while not self._stop.is_set():
            try:
                return psycopg.connect(self.conninfo)
            except psycopg.OperationalError:
                self._stop.wait(RECONNECT_S)
        return None
