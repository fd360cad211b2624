"""Writes rows one by one through a fault: what was acknowledged, and for how long nothing was."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg.conninfo import make_conninfo

RECONNECT_S = 0.1
CONNECT_S = 30
ANSWER_MS = 3000
"""A connection from which nothing comes back for so long is given up."""


@dataclass(frozen=True)
class Table:
    """Where the rows go: statements that take a text, the row's key."""

    insert: str
    there: str
    """The keys of all its rows."""
    remove: str
    """Takes all its rows away."""


@dataclass
class Writer:
    """Inserts ``rate`` rows a second, each in its own transaction, within the block. No row is tried twice.

    ``acknowledged`` has the keys whose commit PostgreSQL confirmed, with the time; ``unknown`` those of which the connection
    broke before it did: they may be there or not.
    """

    conninfo: str
    table: Table
    rate: float = 50
    acknowledged: dict[str, float] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    reconnects: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _failure: BaseException | None = None

    def __post_init__(self) -> None:
        self.conninfo = make_conninfo(
            self.conninfo,
            connect_timeout=2,
            target_session_attrs="read-write",  # after a fault, one that was the primary may still be answering
            tcp_user_timeout=ANSWER_MS,
            keepalives_idle=1,
            keepalives_interval=1,
            keepalives_count=2,
            application_name="drill",
        )
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(60)
        if self._failure and not error:
            raise self._failure

    def outage_s(self, since: float, until: float | None = None) -> float:
        """The longest time without an acknowledgement from ``since`` (monotonic) on, to the next one or to now."""
        times = [at for at in list(self.acknowledged.values()) if until is None or at <= until]
        before = [at for at in times if at <= since][-1:]
        moments = [*(before or [since]), *(at for at in times if at > since), *([] if until else [time.monotonic()])]
        return max((later - earlier for earlier, later in pairwise(moments)), default=0.0)

    def lost(self) -> list[str]:
        """Keys that were acknowledged and are not there."""
        with self._connected() as connection:
            there = {key for (key,) in connection.execute(self.table.there)}
        return sorted(set(self.acknowledged) - there)

    def remove(self) -> None:
        """Take its rows, and those that an earlier run left, away."""
        with self._connected() as connection:
            connection.execute(self.table.remove)

    def _connected(self) -> psycopg.Connection[Any]:
        """A connection; after a fault the first ones may still fail. Raises psycopg.OperationalError after CONNECT_S."""
        deadline = time.monotonic() + CONNECT_S
        while True:
            try:
                return psycopg.connect(self.conninfo)
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(RECONNECT_S)

    def _run(self) -> None:
        connection: psycopg.Connection[Any] | None = None
        number, due = 0, time.monotonic()
        run = f"{int(time.time()):x}"
        try:
            while not self._stop.is_set():
                if (wait := due - time.monotonic()) > 0:
                    self._stop.wait(wait)
                    continue
                due = max(due + 1 / self.rate, time.monotonic() - 1)
                try:
                    if connection is None:
                        connection = psycopg.connect(self.conninfo, autocommit=True)
                except psycopg.OperationalError:
                    self._stop.wait(RECONNECT_S)
                    continue
                number += 1
                key = f"D{run}-{number:06d}"
                try:
                    connection.execute(self.table.insert, (key,))
                    self.acknowledged[key] = time.monotonic()
                except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction):  # the latter before its promotion ends
                    self.unknown.append(key)
                    self.reconnects += 1
                    connection.close()
                    connection = None
        except BaseException as error:
            self._failure = error
        finally:
            if connection:
                connection.close()
