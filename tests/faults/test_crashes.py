"""A service crashes, or is held down, while changes flow: it is healed, the stream goes on, nothing is lost."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import psutil
import pytest

from include.demo.flights import position
from tests.live import Platform

CRASHED = ["connect", "flink-taskmanager", "kafka", "nessie", "s3"]


def _kill(platform: Platform, service: str) -> int:
    """SIGKILL to every process of a service; the id of the first."""
    pid = platform.supervisor.info(service)["pid"]
    process = psutil.Process(pid)
    for one in [process, *process.children(recursive=True)]:
        with suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)
    return pid


@pytest.mark.parametrize("service", CRASHED)
def test_the_supervisor_heals_a_crash(published: Platform, service: str) -> None:
    platform = published
    with platform.traffic(rate=200, seconds=20):
        pid = _kill(platform, service)
        platform.eventually(
            lambda: (
                platform.supervisor.info(service)["pid"] not in (None, pid) and platform.supervisor.state(service) == "running"
            ),
            60,
            f"{service} runs again",
        )
        at = position(platform.source).event_number
        platform.eventually(lambda: position(platform.source).event_number > at, 60, "the replay goes on")
    platform.run_dag("platform_bootstrap", timeout_s=300)
    platform.run_dag("cdc_flights", timeout_s=300)
    platform.prove()


def test_jobs_lost_with_the_job_manager_are_found_again(published: Platform) -> None:
    platform = published
    before = {job["name"] for job in platform.jobs()}
    with platform.traffic(rate=200, seconds=20):
        _kill(platform, "flink-jobmanager")
        platform.run_dag("platform_bootstrap", timeout_s=300)
        platform.run_dag("cdc_flights", timeout_s=300)
        assert sorted(job["name"] for job in platform.jobs()) == sorted(before)
    platform.prove()


def test_bootstrap_starts_what_is_held_down(published: Platform) -> None:
    platform = published
    with platform.traffic(rate=200, seconds=20):
        platform.supervisor.stop("connect")
        platform.supervisor.stop("trino")
        assert platform.supervisor.state("connect") == platform.supervisor.state("trino") == "stopped"
        evidence = platform.run_dag("platform_bootstrap", timeout_s=300)
        assert evidence is not None
        started = {name for name, deeds in evidence["services"].items() if deeds["start"]["was"] == "stopped"}
        assert started == {"connect", "trino"}
    platform.prove()
