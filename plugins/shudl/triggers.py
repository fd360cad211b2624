"""Waits that end their tasks themselves: no worker is needed for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TaskFailedEvent, TaskSkippedEvent, TaskSuccessEvent, TriggerEvent
from cosmos.listeners.dag_run_listener import EventStatus
from cosmos.operators._watcher.triggerer import WatcherTrigger

from include.platform.catalog import BY_NAME, CONN_IDS
from include.platform.checks import NotHealthy, healthy
from include.platform.runtime import RuntimeUnavailable, runtime
from shudl.endpoints import MissingConnection, is_external, service_endpoint

POLL_S = 0.7
MODEL_POLL_S = 1.0
MAY_COME = ("starting", "running", "restarting", "external")
"""States from which a service can become healthy by itself."""


class HealthyTrigger(BaseTrigger):
    """Wait until a service is healthy, as long as the catalogue lets it take.

    Fails the task at once when nothing will start the service, and at its deadline; the task's log then names
    the service, its state, the last reason and where to look.
    """

    def __init__(self, service: str) -> None:
        super().__init__()
        self.service = service

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "shudl.triggers.HealthyTrigger", {"service": self.service}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        try:
            failure = await self._wait()
        except (MissingConnection, RuntimeUnavailable) as error:
            failure = str(error)
        if failure:
            self.log.error("%s", failure)
            yield TaskFailedEvent()
        else:
            yield TaskSuccessEvent()

    async def _wait(self) -> str | None:
        """Why the service does not become healthy; None when it has."""
        endpoint = await service_endpoint(self.service)
        timeout_s = BY_NAME[self.service].start_timeout_s
        started = time.monotonic()
        while True:
            try:
                await asyncio.to_thread(healthy, self.service, {CONN_IDS[self.service]: endpoint})
            except NotHealthy as error:
                reason = error
            else:
                self.log.info("%s is healthy after %.1f s", self.service, time.monotonic() - started)
                return None
            state = "external" if is_external(self.service, endpoint) else await asyncio.to_thread(runtime().state, self.service)
            waited_s = time.monotonic() - started
            if state not in MAY_COME or waited_s > timeout_s:
                what = f"{self.service} is {state} and not healthy after {waited_s:.0f} s"
                return f"{what}: {reason}; see {runtime().how_to_look(self.service)}"
            await asyncio.sleep(POLL_S)


class ModelTrigger(WatcherTrigger):
    """Wait for what the task ``producer``, which runs dbt, says of ``model`` (dbt's unique id), as Cosmos records it."""

    def __init__(self, model: str, producer: str, dag_id: str) -> None:
        super().__init__(model, producer, dag_id, run_id="", map_index=-1, poke_interval=MODEL_POLL_S)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        known = {"model": self.model_unique_id, "producer": self.producer_task_id, "dag_id": self.dag_id}
        return "shudl.triggers.ModelTrigger", known

    async def _log_startup_events(self) -> None:
        """What dbt says of its own version is in the producer's log."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        self.run_id = self.task_instance.run_id
        async for event in super().run():
            said = event.payload
            if said["status"] == EventStatus.SUCCESS and "reason" not in said:
                yield TaskSuccessEvent()
            elif said["status"] == EventStatus.SKIPPED:
                yield TaskSkippedEvent()
            else:
                self.log.error("%s was not built; see the log of %s", self.model_unique_id, self.producer_task_id)
                yield TaskFailedEvent()
