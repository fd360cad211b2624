"""Whether Flink's jobs are seen to be forgotten: at once, once, and not when they merely end or nobody answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from include.platform.endpoints import Endpoint
from shudl import flink


def job(jid: str, state: str = "RUNNING") -> dict[str, Any]:
    return {"jid": jid, "name": f"cdc.flights.{jid}", "state": state}


def events(monkeypatch: pytest.MonkeyPatch, *seen: list[dict[str, Any]] | Exception) -> list[Any]:
    """What the trigger says while the job manager answers ``seen``, one after the other."""
    answers: Iterator[Any] = iter(seen)

    class Over(Exception):
        pass

    class Manager:
        def __init__(self, *_: object) -> None:
            pass

        def jobs(self) -> list[dict[str, Any]]:
            answer = next(answers, Over())
            if isinstance(answer, Exception):
                raise answer
            return answer

    async def endpoint(service: str) -> Endpoint:
        return Endpoint("shudl_flink", "http", service, 8081)

    async def listen() -> list[Any]:
        found = []
        try:
            async for event in flink.JobsForgotten().run():
                found.append(event.payload["forgotten"])
        except Over:
            return found
        return found

    monkeypatch.setattr(flink, "JobManager", Manager)
    monkeypatch.setattr(flink, "service_endpoint", endpoint)
    monkeypatch.setattr(flink, "POLL_S", 0)
    return asyncio.run(listen())


def test_a_restarted_job_manager_is_seen_once(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = httpx.ConnectError("refused")
    assert events(monkeypatch, [job("a"), job("b")], gone, gone, [], [], [job("c")]) == [["cdc.flights.a", "cdc.flights.b"]]


def test_one_that_came_back_with_new_jobs_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert events(monkeypatch, [job("a")], [job("b")]) == [["cdc.flights.a"]]


def test_jobs_that_end_or_restart_are_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    assert events(monkeypatch, [job("a")], [job("a", "RESTARTING")], [job("a", "CANCELED")], [job("a", "CANCELED")], []) == []


def test_nothing_was_known_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert events(monkeypatch, [], [job("a")], [job("a")]) == []
