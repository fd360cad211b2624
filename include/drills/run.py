"""One drill: a fault while rows are written and streamed, then the proof that source and lake are equal.

The rows go into ``public.planes`` of the flights database, each in its own transaction, and are taken away at the end. A drill
that was killed leaves them, or a service that is down: the next one begins by setting that right.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg

from include import proof
from include.cdc.coverage import wait_until_covered
from include.cdc.pipelines import by_source
from include.drills.cluster import Cluster, DrillError, wait
from include.drills.writer import Table, Writer
from include.platform import checks
from include.platform.catalog import CONN_IDS, service
from include.platform.endpoints import Endpoint, Endpoints
from include.platform.runtime import Runtime, runtime
from include.platform.settings import settings

SOURCE = "flights"
PLANES = Table(
    "INSERT INTO public.planes VALUES (%s, 2013, 'Fixed wing', 'ShuDL', 'Drill', 2, 150, NULL, 'Turbo-fan')",
    "SELECT tailnum FROM public.planes WHERE manufacturer = 'ShuDL' AND model = 'Drill'",
    "DELETE FROM public.planes WHERE manufacturer = 'ShuDL' AND model = 'Drill'",
)
NAMED = {"standby": "patroni", "postgresql": "patroni"}
"""What a drill is about → the service of the catalogue that it is part of, where they differ."""
RATE = 50
WARM_UP = 100
"""Rows that are acknowledged before the fault, and after all works again."""
WHOLE_S = 240
BACK_S = 240

Say = Callable[[str], Any]


@dataclass
class Drill:
    """A fault in a service of this platform. :meth:`run` is everything; what it saw is in ``evidence``, also when it fails."""

    service: str
    fault: str
    endpoints: Endpoints
    say: Say
    timeout_s: float = 900
    evidence: dict[str, Any] = field(default_factory=dict)

    @property
    def runtime(self) -> Runtime:
        return runtime()

    @property
    def clustered(self) -> bool:
        """Whether PostgreSQL is the cluster of containers."""
        return settings.docker

    @property
    def named(self) -> str:
        """The service in the catalogue."""
        return NAMED.get(self.service, self.service)

    def run(self) -> dict[str, Any]:
        """Raises :class:`DrillError`, :class:`include.cdc.coverage.NotCovered` or what a check raises."""
        self.evidence |= {"service": self.service, "fault": self.fault, "at": datetime.now(UTC).isoformat(timespec="seconds")}
        try:
            self._set_right()
            self._drill()
        except Exception as error:
            self.evidence["error"] = f"{type(error).__name__}: {error}"
            raise
        finally:
            self._clean_up()
        return self.evidence

    def _set_right(self) -> None:
        """What an earlier drill left: services that are down, rows. Everything works before the fault."""
        for name in dict.fromkeys((*(("patroni", "haproxy") if self.clustered else ("postgres",)), self.named)):
            if self.runtime.start(name):
                self.say(f"{name} was down: started")
        self._works(WHOLE_S)
        with psycopg.connect(self.endpoints["flights_db"].conninfo) as connection:
            if not connection.execute("SELECT to_regclass('public.planes')").fetchone()[0]:
                raise DrillError("the flights database is empty: run the DAGs demo_load and cdc_flights first")
            connection.execute(PLANES.remove)
        self.say("waiting until the lake has everything")
        self._covered(self.timeout_s)  # a first snapshot may still be under way
        if self.clustered:  # a slot that nobody reads from is not copied
            Cluster(self.endpoints).is_whole(WHOLE_S)
        self.say("all works, and the lake has everything")

    def _works(self, within_s: float) -> None:
        told = ""

        def works() -> bool:
            nonlocal told
            try:
                checks.healthy(self.named, self.endpoints)
                checks.works(self.named, self.endpoints)
            except (checks.NotHealthy, checks.CheckFailed) as error:
                told = str(error).splitlines()[0]
                return False
            return True

        wait(f"{self.named} works", within_s, works, lambda: told)

    def _covered(self, within_s: float) -> float:
        return wait_until_covered(by_source(SOURCE), self.endpoints, timeout_s=within_s)["seconds"]

    def _drill(self) -> None:
        with Writer(self.endpoints["flights_db"].conninfo, PLANES, RATE) as writer:
            self._writes(writer, 60)
            since = time.monotonic()
            self._fault()
            if self.clustered and self.named == "patroni":
                Cluster(self.endpoints).is_whole(BACK_S)
            self._works(BACK_S)
            self._seen("works_s", since)
            self._writes(writer, 60)
            self._covered(self.timeout_s / 2)
            self._seen("caught_up_s", since)
            outage = round(writer.outage_s(since), 2)
        lost = writer.lost()
        self.evidence |= {
            "changes_per_s": RATE,
            "write_outage_s": outage,
            "acknowledged": len(writer.acknowledged),
            "unknown": len(writer.unknown),
            "lost": len(lost),
            "lost_keys": lost[:100],
        }
        self.say(
            f"longest time without an acknowledged write {outage} s; {len(writer.acknowledged)} acknowledged, {len(lost)} lost"
        )
        report = proof.prove(by_source(SOURCE), self.endpoints, self.timeout_s / 2)
        self.evidence["proof"] = report.to_json()
        self.say(f"proof: {report.verdict}, {report.unresolved} unresolved")
        if lost:
            raise DrillError(f"{len(lost)} of {len(writer.acknowledged)} acknowledged rows are not there, such as {lost[:5]}")
        if report.unresolved:
            raise DrillError(f"source and lake differ: {report.text()}")

    def _writes(self, writer: Writer, within_s: float) -> None:
        before = len(writer.acknowledged)
        wait(f"{WARM_UP} rows are acknowledged", within_s, lambda: len(writer.acknowledged) >= before + WARM_UP)

    def _seen(self, what: str, since: float) -> None:
        self.evidence[what] = round(time.monotonic() - since, 1)
        self.say(f"{what}: {self.evidence[what]}")

    def _fault(self) -> None:
        if self.service == "postgresql":
            self._fail_over(Cluster(self.endpoints))
            return
        part = Cluster(self.endpoints).standby() if self.service == "standby" else next(iter(service(self.named).containers), "")
        self.say(f"{self.fault}: {part or self.service}")
        self.runtime.crash(self.named, part)

    def _fail_over(self, cluster: Cluster) -> None:
        old, since = cluster.primary(), time.monotonic()
        self.say(f"{self.fault}: the primary is {old}")
        if self.fault == "switchover":
            cluster.switch_over()
        else:
            self.runtime.kill("patroni", old)
        new = cluster.has_another_primary(than=old, within_s=90)
        self._seen("another_primary_s", since)
        self.evidence["primaries"] = [old, new]
        self.runtime.start("patroni")

    def _clean_up(self) -> None:
        """As far as it can be done: the next drill does the rest."""
        with suppress(Exception):
            self.runtime.start(self.named)
        with suppress(psycopg.Error), psycopg.connect(self.endpoints["flights_db"].conninfo) as connection:
            connection.execute(PLANES.remove)


def own(endpoints: Endpoints, name: str, is_external: Callable[[str, Endpoint], bool]) -> None:
    """Raises :class:`DrillError` for what this platform does not run itself: a service or source of somebody else."""
    member = NAMED.get(name, name)
    if member not in CONN_IDS:
        raise DrillError(f"{name}: there is none on one machine; run drill_service with postgres there")
    source = next(name for name, conn_id in CONN_IDS.items() if conn_id == "flights_db")
    for part in (member, source):
        endpoint = endpoints[CONN_IDS[part]]
        if is_external(part, endpoint):
            raise DrillError(f"{part} at {endpoint.address} is not this platform's: no drill")
