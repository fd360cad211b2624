"""For how long changes wait for a standby that is away.

No consumer of changes sees what the standby may not have (``synchronized_standby_slots``), so that a failover takes nothing
back that was streamed. While the standby is away, changes wait, and the primary keeps their WAL. After ``limit_s`` seconds
they go on without it: the setting is emptied on the primary (``ALTER SYSTEM``). It is in force again as soon as the standby
streams and has a copy of every failover slot that survives a failover. What was acknowledged to clients that write is not
concerned: that is ``synchronous_standby_names``, which Patroni keeps.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

TICK_S = 2.0
FAILURES = (psycopg.Error, OSError, ValueError)
log = logging.getLogger("fencer")

STATE = """
    SELECT pg_is_in_recovery(), EXISTS (
        SELECT FROM pg_settings
        WHERE name = 'synchronized_standby_slots' AND setting = '' AND sourcefile LIKE '%postgresql.auto.conf')
"""
STREAMING = "SELECT slot_name FROM pg_replication_slots WHERE slot_type = 'physical' AND active AND slot_name = ANY(%s)"
FAILOVER_SLOTS = "SELECT slot_name FROM pg_replication_slots WHERE slot_type = 'logical' AND failover AND NOT temporary"
COPIES = f"{FAILOVER_SLOTS} AND synced AND invalidation_reason IS NULL"


@dataclass
class Policy:
    """One look at a time, by :meth:`look`. ``away_s``: for how long a standby has been away; ``without``: whether changes go
    on without it.
    """

    members: list[str]
    conninfo: str
    limit_s: float
    clock: Callable[[], float] = time.monotonic
    away_s: float = 0
    without: bool = False
    _away_at: float | None = None
    _sessions: dict[str, psycopg.Connection] = field(default_factory=dict, repr=False)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Policy:
        conninfo = psycopg.conninfo.make_conninfo(
            user="fencer",
            password=Path(env["POSTGRES_FENCER_PASSWORD_FILE"]).read_text().strip(),
            dbname="postgres",
            sslmode="verify-full",
            sslrootcert=env["TLS_CA_FILE"],
            connect_timeout=3,
            application_name="fencer",
            options="-c statement_timeout=3s",
            tcp_user_timeout=3000,
        )
        return cls(env["PATRONI_MEMBERS"].split(), conninfo, float(env["FENCER_STANDBY_LIMIT_S"]))

    def _run(self, member: str, query: str, *parameters: object) -> list[tuple]:
        """In a session that is kept. Raises psycopg.OperationalError for a member that does not answer."""
        try:
            if member not in self._sessions:
                self._sessions[member] = psycopg.connect(self.conninfo, host=member, autocommit=True)
            cursor = self._sessions[member].execute(query, parameters or None)
            return cursor.fetchall() if cursor.description else []
        except psycopg.Error:
            if session := self._sessions.pop(member, None):
                session.close()
            raise

    def look(self) -> None:
        """Raises one of FAILURES when the primary does not answer."""
        standbys, primary, failure = [], "", "no member answers"
        for member in self.members:
            try:
                ((standby, emptied),) = self._run(member, STATE)
            except psycopg.OperationalError as error:
                failure = f"{member}: {error}"
                continue
            if standby:
                standbys.append(member)
                if emptied:  # copied with the primary's files: it must not begin a reign with it
                    self._gate(member)
            else:
                primary, self.without = member, emptied
        if not primary:
            self._away_at, self.away_s = None, 0
            raise ValueError(f"no primary: {failure}")
        self._judge(primary, [member for member in self.members if member != primary], standbys)

    def _judge(self, primary: str, others: list[str], standbys: list[str]) -> None:
        streaming = {name for (name,) in self._run(primary, STREAMING, others)}
        away = sorted(set(others) - streaming)
        if away:
            self._away_at = self._away_at or self.clock()
            self.away_s = self.clock() - self._away_at
            if self.limit_s and self.away_s >= self.limit_s and not self.without:
                self._run(primary, "ALTER SYSTEM SET synchronized_standby_slots = ''")
                self._run(primary, "SELECT pg_reload_conf()")
                self.without = True
                log.warning("%s: changes go on without %s, away for %.0f s", primary, ", ".join(away), self.away_s)
            return
        self._away_at, self.away_s = None, 0
        if self.without and set(others) <= set(standbys):
            slots = set(self._run(primary, FAILOVER_SLOTS))
            if all(slots <= set(self._run(member, COPIES)) for member in others):
                self._gate(primary)
                self.without = False

    def _gate(self, member: str) -> None:
        self._run(member, "ALTER SYSTEM RESET synchronized_standby_slots")
        self._run(member, "SELECT pg_reload_conf()")
        log.warning("%s: changes wait for the standby again", member)
