"""Flink's job manager, watched: it keeps its list of jobs in memory, and what it forgot has to be submitted again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from include.platform.flink import FlinkError, JobManager
from shudl.endpoints import MissingConnection, service_endpoint

POLL_S = 3.0
TIMEOUT_S = 4.0
OVER = ("FINISHED", "CANCELED", "FAILED")


class JobsForgotten(BaseEventTrigger):
    """An event each time that a job which ran is not known any more: the job manager was started anew.

    What ended or was cancelled it still knows, for an hour. A job manager that does not answer is waited for.
    """

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "shudl.flink.JobsForgotten", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        running: dict[str, str] = {}
        while True:
            try:
                endpoint = await service_endpoint("flink-jobmanager")
                jobs = await asyncio.to_thread(lambda url=endpoint.url: JobManager(url, TIMEOUT_S).jobs())
            except (httpx.HTTPError, FlinkError, MissingConnection):
                pass
            else:
                forgotten = sorted(running[job] for job in running.keys() - {job["jid"] for job in jobs})
                running = {job["jid"]: job["name"] for job in jobs if job["state"] not in OVER}
                if forgotten:
                    self.log.warning("Flink's job manager has forgotten %s", ", ".join(forgotten))
                    yield TriggerEvent({"forgotten": forgotten})
            await asyncio.sleep(POLL_S)
