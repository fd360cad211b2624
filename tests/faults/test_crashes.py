"""Each service is killed in turn while 500 changes a second flow: it is healed, the stream goes on, nothing is lost.

The seconds until each was back are kept as evidence (``crashes``); docs/reliability.md shows them. Some run on each change,
all of them by ``make test-faults``.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import psutil
import pytest

from include.platform.catalog import LAYERS, SERVICES
from include.platform.checks import works
from include.platform.evidence import write_evidence
from tests.churn import Churn
from tests.live import Platform

RATE = 500
GROUPS = {layer: tuple(s.name for s in SERVICES if s.layer == layer) for layer in LAYERS}
ON_EACH_CHANGE = frozenset(("postgres", "kafka", "connect"))
Record = Callable[[str, dict[str, Any]], None]


def _chosen(names: Iterable[str]) -> list[Any]:
    """``names``, those that are not for each change marked so."""
    everything = bool(os.environ.get("SHUDL_FAULT_TESTS"))
    on_demand = pytest.mark.skipif(not everything, reason="tested on demand: make test-faults")
    return [pytest.param(name, marks=() if name in ON_EACH_CHANGE else on_demand) for name in names]


@pytest.fixture(scope="module")
def churn(published: Platform) -> Iterator[Churn]:
    with Churn(published.source, RATE) as churn:
        yield churn


@pytest.fixture(scope="module")
def record() -> Iterator[Record]:
    """Takes down the seconds of one recovery."""
    found: dict[str, dict[str, Any]] = {}
    yield found.__setitem__
    write_evidence("crashes", f"{int(time.time())}", {"changes_per_s": RATE, "recoveries": found})


def _kill(platform: Platform, service: str) -> int:
    """SIGKILL to every process of a service; the id of the first."""
    pid = platform.supervisor.info(service)["pid"]
    process = psutil.Process(pid)
    for one in [process, *process.children(recursive=True)]:
        with suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)
    return pid


def _works(platform: Platform, service: str) -> bool:
    try:
        works(service, platform.endpoints)
    except Exception:
        return False
    return True


def _flows_again(platform: Platform, churn: Churn, since: float, jobs_lost: bool) -> dict[str, Any]:
    """Wait until the lake holds what is committed now, and the source takes changes; seconds since ``since``."""
    if jobs_lost:
        # Flink's job manager forgets its jobs; the DAG finds them gone and submits them from their checkpoints.
        platform.run_dag("cdc_flights", timeout_s=300)
    before = churn.acknowledged
    platform.eventually(lambda: churn.acknowledged > before, 60, "the source takes changes")
    platform.cover()
    return {"caught_up_s": round(time.monotonic() - since, 1), "acknowledged": churn.acknowledged}


@pytest.mark.parametrize("service", _chosen(service.name for service in SERVICES))
def test_the_supervisor_heals_a_crash(published: Platform, churn: Churn, record: Record, service: str) -> None:
    platform = published
    killed = time.monotonic()
    pid = _kill(platform, service)
    platform.eventually(
        lambda: (
            platform.supervisor.info(service)["pid"] not in (None, pid)
            and platform.supervisor.state(service) == "running"
            and _works(platform, service)
        ),
        180,
        f"{service} works again",
    )
    back = {"works_s": round(time.monotonic() - killed, 1)}
    record(f"{service} by supervisor", back | _flows_again(platform, churn, killed, service == "flink-jobmanager"))


@pytest.mark.parametrize("layer", _chosen(LAYERS))
def test_bootstrap_starts_what_is_held_down(published: Platform, churn: Churn, record: Record, layer: str) -> None:
    platform = published
    killed = time.monotonic()
    for service in GROUPS[layer]:
        _kill(platform, service)
        platform.supervisor.stop(service)
        assert platform.supervisor.state(service) == "stopped"
    evidence = platform.run_dag("platform_bootstrap", timeout_s=400)
    assert evidence is not None
    started = {name for name, deeds in evidence["services"].items() if deeds["start"]["was"] == "stopped"}
    assert started == set(GROUPS[layer])
    back = {"works_s": round(time.monotonic() - killed, 1)}
    record(f"{layer} by platform_bootstrap", back | _flows_again(platform, churn, killed, layer == "compute"))


def test_nothing_was_lost(published: Platform, churn: Churn) -> None:
    """After all crashes: the proof while changes flow, and once more when they have ended."""
    published.prove()
    churn.stop()
    churn.check()
    assert churn.acknowledged > 0 and churn.reconnects > 0
    published.prove()
