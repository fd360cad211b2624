"""Every entrypoint refuses to start without its variables, naming the one that is missing."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from include.platform.catalog import CONTROL_PLANE, SERVICES
from include.platform.environment import service_environment
from include.platform.settings import ROOT

ENTRYPOINTS = sorted((ROOT / "docker" / "services").glob("*/entrypoint.sh"))
ALL = (*CONTROL_PLANE, *SERVICES)


def _run(entrypoint: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(entrypoint)], env={"PATH": os.environ["PATH"], **env}, capture_output=True, text=True, timeout=20
    )


def test_every_service_has_an_entrypoint_and_every_entrypoint_a_service() -> None:
    assert {path.parent.name for path in ENTRYPOINTS} == {service.entrypoint for service in ALL}


@pytest.mark.parametrize("service", ALL, ids=lambda service: service.name)
def test_each_needed_variable_is_named_when_missing(service, tmp_path: Path) -> None:
    entrypoint = ROOT / "docker" / "services" / service.entrypoint / "entrypoint.sh"
    env = service_environment(service.name)
    text = entrypoint.read_text().replace("\\\n", " ")
    needed = [name for line in re.findall(r"^need (.*)$", text, re.M) for name in re.findall(r"\b[A-Z][A-Z0-9_]+\b", line)]
    assert needed and set(needed) <= set(env), f"not given by service_environment: {set(needed) - set(env)}"
    for name in needed:
        done = _run(entrypoint, {key: value for key, value in env.items() if key != name})
        assert done.returncode == 64 and f"{name} must be set" in done.stderr, (name, done.stderr)


@pytest.mark.parametrize("service", ALL, ids=lambda service: service.name)
def test_a_secret_that_cannot_be_read_is_named(service) -> None:
    entrypoint = ROOT / "docker" / "services" / service.entrypoint / "entrypoint.sh"
    env = service_environment(service.name)
    wanted = [
        name
        for line in re.findall(r"^secret (.*)$", entrypoint.read_text(), re.M)
        for name in re.findall(r"\b[A-Z][A-Z0-9_]+\b", line)
    ]
    for name in wanted:
        done = _run(entrypoint, {**env, f"{name}_FILE": "/nonexistent"})
        assert done.returncode == 64 and f"{name}_FILE=/nonexistent cannot be read" in done.stderr, (name, done.stderr)
