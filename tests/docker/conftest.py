"""The Compose platform of the tests: brought up from nothing, with the demo's first days on it, and taken down at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.compose_platform import Compose, demo_from_nothing

WANTED = "SHUDL_COMPOSE_TESTS"


@pytest.fixture(scope="session")
def compose() -> Iterator[Compose]:
    """Everything up by ``make demo RUNTIME=docker``, from empty volumes."""
    with demo_from_nothing(WANTED, "make test-docker", Compose()) as platform:
        yield platform
