"""The Compose platform of the tests: brought up from nothing, with the demo's first days on it, and taken down at the end.

It is the one platform that docker/compose.yaml describes, so these tests run on demand (``make test-docker`` says so by
``SHUDL_COMPOSE_TESTS``), never beside a platform that somebody uses. ``SHUDL_TEST_KEEP=1`` goes on with the one that runs.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pytest
import yaml

from include.platform.settings import ROOT

PLATFORM = ROOT / "docker" / "platform.sh"
PROFILES = "access,monitoring,docs"
"""What can run where no image can be pulled; the others are checked by their files."""
DEMO_S = 2400
WANTED = "SHUDL_COMPOSE_TESTS"


@dataclass
class Compose:
    """The platform as somebody at its host has it. Every command has a deadline."""

    demo_said: str = field(default="", repr=False)

    @cached_property
    def environment(self) -> dict[str, str]:
        version = (ROOT / "docker" / "VERSION").read_text().strip()
        return {**os.environ, "COMPOSE_PROFILES": PROFILES, "CLICKHOUSE_IMAGE": f"shudl/clickhouse:{version}"}

    def run(self, *command: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
        )

    def make(self, *goals: str, timeout_s: float = 600) -> str:
        done = self.run("make", *goals, timeout_s=timeout_s)
        assert done.returncode == 0, done.stdout[-6000:]
        return done.stdout

    def compose(self, *arguments: str, timeout_s: float = 120) -> str:
        done = self.run(str(PLATFORM), "compose", *arguments, timeout_s=timeout_s)
        assert done.returncode == 0, done.stdout[-6000:]
        return done.stdout

    def cli(self, *arguments: str, timeout_s: float = 300) -> str:
        return self.compose("run", "--rm", "-T", "cli", *arguments, timeout_s=timeout_s)

    @cached_property
    def services(self) -> dict[str, dict[str, Any]]:
        """compose.yaml's services with everything filled in."""
        return yaml.safe_load(self.run(str(PLATFORM), "compose", "--profile", "*", "config").stdout)["services"]

    def containers(self) -> dict[str, dict[str, Any]]:
        """What Docker says of each container of the project, by service."""
        ids = self.compose("ps", "--all", "--quiet").split()
        found = json.loads(self.run("docker", "inspect", *ids).stdout)
        return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in found}

    def secrets(self) -> dict[str, str]:
        folder = ROOT / "docker" / "secrets"
        return {path.name: path.read_text().strip() for path in folder.iterdir()}


@pytest.fixture(scope="session")
def compose() -> Iterator[Compose]:
    """Everything up by ``make demo RUNTIME=docker``, from empty volumes."""
    if not os.environ.get(WANTED):
        pytest.skip(f"the Compose platform's own tests run on demand: make test-docker (it sets {WANTED})")
    platform = Compose()
    engine = platform.run("docker", "version", "--format", "{{.Server.Version}}")
    if engine.returncode:
        pytest.skip(f"no Docker engine: {engine.stdout.strip()}")
    keep = bool(os.environ.get("SHUDL_TEST_KEEP"))
    there = platform.run("docker", "ps", "--all", "--quiet", "--filter", "label=com.docker.compose.project=shudl").stdout.split()
    if there and not keep:
        pytest.fail(
            "a Compose platform is here already, which the tests would take down: make down, if it is not needed", pytrace=False
        )
    try:
        platform.demo_said = platform.make("demo", "RUNTIME=docker", "DEMO=--until 2013-12-04", timeout_s=DEMO_S)
        yield platform
    finally:
        if not keep:
            platform.run(str(PLATFORM), "compose", "down", "--volumes", timeout_s=300)
