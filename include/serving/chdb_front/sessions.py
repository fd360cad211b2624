"""HTTP sessions: a connection kept between requests, with its temporary tables and settings."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from include.serving.chdb_front.errors import (
    INVALID_SESSION_TIMEOUT,
    SESSION_IS_LOCKED,
    SESSION_NOT_FOUND,
    TOO_MANY_SIMULTANEOUS_QUERIES,
    ClickHouseError,
)

DEFAULT_TIMEOUT_S = 60
MAX_TIMEOUT_S = 3600
MAX_SESSIONS = 256


@dataclass
class Session:
    connection: Any
    timeout_s: int
    busy: bool = True
    used_at: float = field(default_factory=time.monotonic)


class Sessions:
    """The open sessions by id. One request at a time uses a session; used from one thread only."""

    def __init__(self, connect: Callable[[], Any], limit: int = MAX_SESSIONS) -> None:
        self._connect = connect
        self._limit = limit
        self._open: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._open)

    def acquire(self, session_id: str, timeout: str, must_exist: bool) -> Session:
        """The session ``session_id`` for one request; made when it does not exist. Pair with :meth:`release`.

        ``timeout`` is in seconds (empty: 60) and starts anew with each release. Beyond the limit on sessions the
        idle one that was used longest ago is closed.
        """
        timeout = timeout or str(DEFAULT_TIMEOUT_S)
        if not timeout.isdigit() or int(timeout) > MAX_TIMEOUT_S:
            text = f"session_timeout={timeout}: must be a number of seconds up to {MAX_TIMEOUT_S}"
            raise ClickHouseError(INVALID_SESSION_TIMEOUT, text)
        session = self._open.get(session_id)
        if session is None:
            if must_exist:
                raise ClickHouseError(SESSION_NOT_FOUND, f"Session {session_id} not found")
            self._make_room()
            session = self._open[session_id] = Session(self._connect(), int(timeout))
        elif session.busy:
            raise ClickHouseError(SESSION_IS_LOCKED, f"Session {session_id} is locked by a concurrent client")
        session.timeout_s = int(timeout)
        session.busy = True
        return session

    def release(self, session_id: str, close: bool = False) -> None:
        """Give the session back; ``close`` ends it."""
        session = self._open[session_id]
        session.busy, session.used_at = False, time.monotonic()
        if close:
            self._close(session_id)

    def expire(self) -> None:
        """Close the sessions that were idle for longer than their timeout. To be called before each request."""
        now = time.monotonic()
        for session_id in [i for i, s in self._open.items() if not s.busy and now - s.used_at > s.timeout_s]:
            self._close(session_id)

    def close_all(self) -> None:
        for session_id in list(self._open):
            self._close(session_id)

    def _make_room(self) -> None:
        if len(self._open) < self._limit:
            return
        idle = [i for i, s in self._open.items() if not s.busy]
        if not idle:
            raise ClickHouseError(TOO_MANY_SIMULTANEOUS_QUERIES, f"All of {self._limit} sessions are in use")
        self._close(min(idle, key=lambda i: self._open[i].used_at))

    def _close(self, session_id: str) -> None:
        self._open.pop(session_id).connection.close()
