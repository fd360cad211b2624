"""What fails and is outgrown, in sentences: each wait has a deadline of its own, and a failure keeps every process's log.

Tests on a few containers in a Compose project of their own run in CI. Those of the whole platform (fixture ``whole``, or
:func:`tests.compose_platform.demo_from_nothing` with other profiles) run on demand: ``make test-ha`` sets ``SHUDL_HA_TESTS``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from include.platform.settings import settings
from tests.compose_platform import Compose, demo_from_nothing

WANTED = "SHUDL_HA_TESTS"
GOAL = "make test-ha"


@pytest.fixture(scope="session")
def whole() -> Iterator[Compose]:
    """Everything up by ``make demo RUNTIME=docker``, from empty volumes."""
    with demo_from_nothing(WANTED, GOAL, Compose()) as platform:
        yield platform


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Of a test that failed: what each container of its fixtures said (those with ``keep_logs``), in a file each."""
    report = yield
    if report.failed:
        folder = settings.logs / "ha" / item.name.replace("/", "_")
        for fixture in getattr(item, "funcargs", {}).values():
            if hasattr(fixture, "keep_logs"):
                _keep(fixture, folder, report)
    return report


def _keep(fixture: Any, folder: Path, report: pytest.TestReport) -> None:
    try:
        kept = fixture.keep_logs(folder)
    except Exception as error:
        report.sections.append(("logs of containers", f"could not be kept: {error}"))
    else:
        report.sections.append(("logs of containers", "\n".join(map(str, kept))))
