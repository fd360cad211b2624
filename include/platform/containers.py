"""The docker runtime: services as containers of ``docker/compose.yaml``, which Compose has created.

The Docker API is reached through the container ``docker-filter``, which lets nothing through but start, stop, restart,
inspect and logs of this project's containers. Docker restarts what crashes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import requests
from docker.errors import APIError, NotFound

import docker
from include.platform.catalog import service
from include.platform.runtime import RuntimeUnavailable

PROJECT = "shudl"
FILTER_URL = "tcp://docker-filter:2375"
API_VERSION = "1.43"
TIMEOUT_S = 20
STATES = {
    "created": "stopped",
    "exited": "stopped",
    "running": "running",
    "paused": "paused",
    "restarting": "restarting",
    "removing": "stopping",
    "dead": "failed",
}
"""Docker's states in our words."""
WORST_FIRST = ("failed", "stopped", "paused", "stopping", "restarting", "starting", "running")


def container_names(name: str) -> tuple[str, ...]:
    """The containers that the service ``name`` is made of, as Compose calls them."""
    svc = service(name)
    return tuple(f"{PROJECT}-{part}-1" for part in svc.containers or (svc.name,))


class Containers:
    """The project's containers."""

    def __init__(self, url: str | None = None) -> None:
        self._api = docker.APIClient(
            base_url=url or os.environ.get("DOCKER_FILTER_URL") or FILTER_URL, version=API_VERSION, timeout=TIMEOUT_S
        )

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        try:
            yield
        except NotFound:
            raise
        except APIError as error:
            raise RuntimeUnavailable(f"{what}: Docker refused: {error.explanation}") from None
        except requests.RequestException as error:
            raise RuntimeUnavailable(
                f"{what}: docker-filter does not answer ({type(error).__name__}); make up starts it"
            ) from None

    def _states(self, name: str) -> dict[str, str]:
        """Container → its state. Raises NotFound when one of them was not created."""
        found = {}
        for container in container_names(name):
            with self._asking(name):
                found[container] = STATES[self._api.inspect_container(container)["State"]["Status"]]
        return found

    def start(self, name: str) -> bool:
        try:
            down = [container for container, state in self._states(name).items() if state != "running"]
        except NotFound:
            raise RuntimeUnavailable(f"{name}: {self.left_out(name)}") from None
        for container in down:
            with self._asking(name):
                self._api.start(container)
        return bool(down)

    def stop(self, name: str) -> bool:
        wait_s = service(name).stop_timeout_s
        try:
            up = [container for container, state in self._states(name).items() if state not in ("stopped", "failed")]
        except NotFound:
            return False
        for container in up:
            with self._asking(name):
                self._api.stop(container, timeout=wait_s)  # docker-py waits that much longer for the answer
        return bool(up)

    def crash(self, name: str, part: str = "") -> None:
        for container in self._part(name, part):
            with self._asking(container):
                self._api.restart(container, timeout=0)  # nothing is waited for before SIGKILL

    def kill(self, name: str, part: str = "") -> None:
        for container in self._part(name, part):
            with self._asking(container):
                self._api.stop(container, timeout=0)

    @staticmethod
    def _part(name: str, part: str) -> tuple[str, ...]:
        if part and part not in service(name).containers:
            raise ValueError(f"{name} has no container {part}; it has {', '.join(service(name).containers)}")
        return (f"{PROJECT}-{part}-1",) if part else container_names(name)

    def state(self, name: str) -> str:
        try:
            states = self._states(name).values()
        except NotFound:
            return "stopped"
        return min(states, key=WORST_FIRST.index)

    def left_out(self, name: str) -> str:
        try:
            self._states(name)
        except NotFound:
            return "its container was not created: its profile is not among COMPOSE_PROFILES in docker/.env"
        return ""

    def how_to_look(self, name: str) -> str:
        parts = " ".join(container.removeprefix(f"{PROJECT}-").removesuffix("-1") for container in container_names(name))
        return f"docker compose -f docker/compose.yaml logs {parts}"
