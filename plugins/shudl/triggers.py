"""Triggers that start, await and stop a service. They end their task themselves: no worker is needed.

Blocking calls run in threads. A task fails with a text that names the service, its state, the last reason
and where to look.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TaskFailedEvent, TaskSkippedEvent, TaskSuccessEvent, TriggerEvent

from include.platform.catalog import BY_NAME
from include.platform.endpoints import Endpoint
from include.platform.supervisor import Supervisor, SupervisorError
from shudl.endpoints import MissingConnection, is_external, service_endpoint

POLL_S = 0.7


class ServiceTrigger(BaseTrigger):
    """What the triggers of one service share. ``service`` is a name from the catalogue."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self.service = service

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{type(self).__module__}.{type(self).__qualname__}", {"service": self.service}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        started = time.monotonic()
        try:
            figures = await self.act(await service_endpoint(self.service))
        except (ServiceError, SupervisorError, MissingConnection) as error:
            self.log.error("%s", error)
            yield TaskFailedEvent(xcoms={"error": str(error)})
            return
        if figures is None:
            yield TaskSkippedEvent()
            return
        figures["seconds"] = round(time.monotonic() - started, 3)
        self.log.info("%s: %s", self.service, figures)
        yield TaskSuccessEvent(xcoms={"return_value": figures})

    async def act(self, endpoint: Endpoint) -> dict[str, Any] | None:
        """Do the deed and return figures; None skips the task. Raises :class:`ServiceError`."""
        raise NotImplementedError


class ServiceError(RuntimeError):
    """A service did not come to the wanted state."""


class StartTrigger(ServiceTrigger):
    """Start a service unless it runs already or is external; does not wait for it."""

    async def act(self, endpoint: Endpoint) -> dict[str, Any]:
        if is_external(endpoint):
            return {"was": "external", "address": endpoint.address}
        started = await asyncio.to_thread(Supervisor().start, self.service)
        return {"was": "stopped" if started else "running"}


class HealthyTrigger(ServiceTrigger):
    """Wait until a service is healthy, as long as the catalogue lets it take."""

    async def act(self, endpoint: Endpoint) -> dict[str, Any]:
        from include.platform.checks import NotHealthy, healthy

        external = is_external(endpoint)
        timeout_s = BY_NAME[self.service].start_timeout_s
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                await asyncio.to_thread(healthy, self.service, {endpoint.conn_id: endpoint})
                return {"address": endpoint.address}
            except NotHealthy as error:
                reason = error
            state = "external" if external else (await asyncio.to_thread(Supervisor().info, self.service))["state"]
            if state in ("stopped", "failed"):
                raise ServiceError(f"{self.service} is {state}: {reason}; see ./shudl logs {self.service}")
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"{self.service} is not healthy after {timeout_s} s (state {state}): {reason}; see ./shudl logs {self.service}"
                )
            await asyncio.sleep(POLL_S)


class StopTrigger(ServiceTrigger):
    """Stop a service and wait until it has ended; skipped when it is not among ``services``.

    ``services`` is a template that renders to names with commas between them; to nothing for all.
    """

    def __init__(self, service: str, services: str) -> None:
        super().__init__(service)
        self.services = services

    def serialize(self) -> tuple[str, dict[str, Any]]:
        path, kwargs = super().serialize()
        return path, {**kwargs, "services": self.services}

    async def act(self, endpoint: Endpoint) -> dict[str, Any] | None:
        if is_external(endpoint) or (self.services and self.service not in self.services.split(",")):
            return None
        stopped = await asyncio.to_thread(Supervisor().stop, self.service)
        return {"was": "running" if stopped else "stopped"}
