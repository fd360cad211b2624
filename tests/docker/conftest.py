"""The Compose platform of the tests: brought up from nothing, with the demo's first days on it, and taken down at the end. And
single containers of the image shudl/haproxy, where there is a Docker engine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from docker.errors import DockerException, ImageNotFound
from docker.models.containers import Container

import docker
from tests.compose_platform import DEMO_S, VERSION, Compose, demo_from_nothing

WANTED = "SHUDL_COMPOSE_TESTS"
HAPROXY = f"shudl/haproxy:{VERSION}"
HEALTHY_S = 60


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whichever test is the first has the demo before it."""
    for item in items:
        if "compose" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(DEMO_S + 1000))


@pytest.fixture(scope="session")
def compose() -> Iterator[Compose]:
    """Everything up by ``make demo RUNTIME=docker``, from empty volumes."""
    with demo_from_nothing(WANTED, "make test-docker", Compose()) as platform:
        yield platform


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    """An engine that has HAProxy's image."""
    try:
        client = docker.from_env(timeout=60)
        client.ping()
    except DockerException as error:
        pytest.skip(f"no Docker engine: {error}")
    try:
        client.images.get(HAPROXY)
    except ImageNotFound:
        pytest.skip(f"no image {HAPROXY}: make images")
    yield client
    client.close()


def port_when_healthy(container: Container, port: str) -> int:
    """The port of the host at which ``port`` is published, once the container is healthy."""
    deadline = time.monotonic() + HEALTHY_S
    while True:
        container.reload()
        bound = container.ports.get(port)
        if bound and container.attrs["State"]["Health"]["Status"] == "healthy":
            return int(bound[0]["HostPort"])
        if time.monotonic() > deadline:
            pytest.fail(f"{container.name} is not healthy after {HEALTHY_S} s: {container.logs().decode()}")
        time.sleep(0.2)
