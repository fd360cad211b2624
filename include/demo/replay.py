"""Replays the days that were not loaded, as live traffic on the flights database."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from datetime import time as clock_time
from typing import Literal

import psycopg

from include.demo.pace import Pace
from include.demo.state import NEW_YORK, Connection, Counts, Position, connect, only_writer, read_position

PROGRESS_EVERY_S = 0.5
RECONNECT_EVERY_S = 0.5
_LONGEST_SLEEP_S = 0.1
"""``stop`` is asked at least this often."""

Ended = Literal["end", "until", "max_events", "stop"]


@dataclass(frozen=True)
class ReplayProgress:
    """Where a run of the replay is."""

    virtual_time: datetime
    """Of the last event applied, in New York's time."""
    event_number: int
    total_events: int
    events: int
    """Applied by this run."""
    counts: Counts
    """Applied by this run."""
    elapsed_s: float
    behind_s: float
    """How long ago the next event was due at the rate asked for."""

    @property
    def rate(self) -> float:
        """Events a second, over this run."""
        return self.events / self.elapsed_s if self.elapsed_s else 0.0


@dataclass(frozen=True)
class ReplayReport(ReplayProgress):
    ended: Ended
    """``end``: no events are left; ``until``, ``max_events``: the bound was reached; ``stop``: asked to."""
    reconnects: int


def last_instant(until: datetime | date) -> datetime:
    """The last instant that ``until`` includes: an instant itself (without a zone: New York's time), a date's end."""
    if isinstance(until, datetime):
        return until if until.tzinfo else until.replace(tzinfo=NEW_YORK)
    midnight = datetime.combine(until + timedelta(days=1), clock_time(), NEW_YORK)
    return midnight - timedelta(microseconds=1)


def _target(
    conn: Connection, start: Position, until: datetime | date | None, max_events: int | None
) -> tuple[int, Ended]:
    bounds: list[tuple[int, Ended]] = [(start.total_events, "end")]
    if until is not None:
        row = conn.execute(
            "SELECT coalesce(max(number), 0) FROM demo.events WHERE at <= %s", [last_instant(until)]
        ).fetchone()
        bounds.append((max(start.event_number, row[0] if row else 0), "until"))
    if max_events is not None:
        bounds.append((start.event_number + max_events, "max_events"))
    return min(bounds, key=lambda bound: bound[0])


class _Run:
    """One call of :func:`replay`; lives on over lost connections."""

    def __init__(
        self,
        pace: Pace,
        until: datetime | date | None,
        max_events: int | None,
        stop: Callable[[], bool],
        progress: Callable[[ReplayProgress], None] | None,
    ) -> None:
        self.pace, self.until, self.max_events, self.stop, self.progress = pace, until, max_events, stop, progress
        self.start: Position | None = None
        self.reconnects = 0

    def _begin(self, start: Position, conn: Connection) -> None:
        self.start = start
        self.target, self.ended = _target(conn, start, self.until, self.max_events)
        self.started = self.told = time.monotonic()

    def _figures(self, now: Position) -> ReplayProgress:
        assert self.start is not None
        elapsed, done = time.monotonic() - self.started, now.event_number - self.start.event_number
        return ReplayProgress(
            virtual_time=now.virtual_time,
            event_number=now.event_number,
            total_events=now.total_events,
            events=done,
            counts=now.counts - self.start.counts,
            elapsed_s=elapsed,
            behind_s=self.pace.behind_s(done, elapsed) if now.event_number < self.target else 0.0,
        )

    def go_on(self, conn: Connection) -> ReplayReport:
        """Applies events from the recorded position to the target."""
        now = read_position(conn)
        if self.start is None:
            self._begin(now, conn)
        assert self.start is not None
        ended = self.ended
        while now.event_number < self.target:
            if self.stop():
                ended = "stop"
                break
            done, elapsed = now.event_number - self.start.event_number, time.monotonic() - self.started
            if wait := self.pace.wait_s(done, elapsed):
                time.sleep(min(wait, _LONGEST_SLEEP_S))
            else:
                size = self.pace.transaction_size(done, elapsed)
                conn.execute("SELECT demo.replay_to(%s)", [min(now.event_number + size, self.target)])
                now = read_position(conn)
            if self.progress and time.monotonic() - self.told >= PROGRESS_EVERY_S:
                self.progress(self._figures(now))
                self.told = time.monotonic()
        figures = self._figures(now)
        if self.progress:
            self.progress(figures)
        return ReplayReport(**vars(figures), ended=ended, reconnects=self.reconnects)


def replay(
    conninfo: str,
    rate: float | None = None,
    until: datetime | date | None = None,
    max_events: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[ReplayProgress], None] | None = None,
    *,
    reconnect_s: float = 60,
) -> ReplayReport:
    """Applies the next events, in their order, at ``rate`` changes a second (None or 0: as fast as it goes).

    Ends when no event is left, after the last event at or before ``until`` (a date: up to the end of that day in New
    York; an instant: including it), after ``max_events``, or soon after ``stop()`` is true. ``progress`` is called
    about twice a second and at the end.

    The rules by which a flight becomes events stand in ``replay.sql``. Events are applied in transactions of about 50
    ms of traffic; each also moves the position, so a replay that was killed goes on exactly where it was. When the
    connection is lost it tries to connect for at most ``reconnect_s`` seconds, and then catches up with its rate.

    Raises :class:`DemoError` when the database is not loaded, or when another load or replay is running on it;
    ``psycopg.OperationalError`` when the database cannot be reached; ``ValueError`` for a rate or a number of events
    below 0.
    """
    if max_events is not None and max_events < 0:
        raise ValueError(f"max_events {max_events}: must be 0 or more")
    run = _Run(Pace(rate), until, max_events, stop, progress)
    lost_at = None
    while True:
        conn = None
        try:
            conn = connect(conninfo)
            lost_at = None
            with conn, only_writer(conn):
                return run.go_on(conn)
        except psycopg.OperationalError:
            now = time.monotonic()
            lost_at = lost_at or now
            connection_lost = conn is None or conn.broken
            if run.start is None or not connection_lost or stop() or now - lost_at > reconnect_s:
                raise
        run.reconnects += conn is not None
        time.sleep(min(RECONNECT_EVERY_S, reconnect_s))
