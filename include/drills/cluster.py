"""The PostgreSQL cluster as Patroni and its members tell it, for drills: who is what, hand over, wait until all is well."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import psycopg
from psycopg.conninfo import make_conninfo

from include.platform.endpoints import Endpoints

ANSWER_S = 5.0
PORT = 5432
SLOTS = "SELECT slot_name FROM pg_replication_slots WHERE slot_type = 'logical' AND failover AND NOT temporary"
COPIES = f"{SLOTS} AND synced AND invalidation_reason IS NULL"


class DrillError(RuntimeError):
    """The drill could not be done as it is meant; the text says what was there instead."""


def wait(what: str, within_s: float, condition: Callable[[], Any], found: Callable[[], Any] = lambda: "") -> Any:
    """What ``condition()`` is once it is true. Raises :class:`DrillError` after ``within_s``."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise DrillError(f"not within {within_s:.0f} s: {what}; there is {found()}")
        time.sleep(0.3)
    return value


class Cluster:
    """Members are named as their hosts."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._patroni, self._source = endpoints["shudl_patroni"], endpoints["flights_db"]
        self.names = self._patroni.extra["members"].split(",")

    def _url(self, member: str) -> str:
        return f"{self._patroni.extra.get('scheme', 'http')}://{member}:{self._patroni.port}"

    def members(self) -> dict[str, tuple[str, str]]:
        """Member → its role and state; empty when none answers."""
        for member in self.names:
            try:
                answer = httpx.get(f"{self._url(member)}/cluster", timeout=ANSWER_S).raise_for_status()
            except httpx.HTTPError:
                continue
            return {one["name"]: (one["role"], one["state"]) for one in answer.json()["members"]}
        return {}

    def primary(self) -> str:
        """Empty when there is none."""
        return next((name for name, told in self.members().items() if told == ("leader", "running")), "")

    def standby(self) -> str:
        """The synchronous one that streams; empty when there is none."""
        return next((name for name, told in self.members().items() if told == ("sync_standby", "streaming")), "")

    def is_whole(self, within_s: float) -> None:
        """A primary with its synchronous standby, which has a copy of every slot that is to survive a failover."""
        wait("a primary with a synchronous standby", within_s, lambda: self.primary() and self.standby(), self.members)
        wait("the standby has a copy of every failover slot", within_s, lambda: not self.missing_copies(), self.missing_copies)

    def missing_copies(self) -> list[str]:
        try:
            primary, standby = self.primary(), self.standby()
            return sorted(self._slots(primary, SLOTS) - self._slots(standby, COPIES)) if primary and standby else ["no standby"]
        except psycopg.OperationalError as error:
            return [str(error).splitlines()[0]]

    def _slots(self, member: str, query: str) -> set[str]:
        conninfo = make_conninfo(self._source.conninfo, host=member, port=PORT, connect_timeout=5)
        with psycopg.connect(conninfo) as connection:
            return {name for (name,) in connection.execute(query)}

    def has_another_primary(self, than: str, within_s: float) -> str:
        return wait(f"a primary other than {than}", within_s, lambda: (p := self.primary()) != than and p, self.members)

    def switch_over(self) -> None:
        """Ask the primary to hand over to its standby. Raises :class:`DrillError` when Patroni refuses."""
        primary, standby = self.primary(), self.standby()
        answer = httpx.post(
            f"{self._url(primary)}/switchover",
            json={"leader": primary, "candidate": standby},
            auth=(self._patroni.login, self._patroni.password),
            timeout=60,
        )
        if not answer.is_success:
            raise DrillError(f"{primary}: POST /switchover: HTTP {answer.status_code}: {answer.text[:200]}")
