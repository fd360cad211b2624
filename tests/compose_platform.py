"""The Compose platform as somebody at its host has it: for tests/docker and tests/ha, which take it up and down."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.platform.settings import ROOT, settings

PLATFORM = ROOT / "docker" / "platform.sh"
PROJECT = "shudl"
PROFILES = "access,monitoring,docs"
"""What can run where no image can be pulled; the others are checked by their files."""
DEMO = "--until 2013-12-04"
DEMO_S = 2400
VERSION = os.environ.get("VERSION") or (ROOT / "docker" / "VERSION").read_text().strip()
"""Tag of ShuDL's images."""


def keep_logs(project: str, folder: Path) -> list[Path]:
    """Write what each container of a Compose project has said to ``folder``, a file each."""
    command = ["docker", "ps", "--all", "--format", "{{.Names}}", "--filter", f"label=com.docker.compose.project={project}"]
    names = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.split()
    folder.mkdir(parents=True, exist_ok=True)
    kept = []
    for name in sorted(names):
        kept.append(folder / f"{name.removeprefix(f'{project}-').removesuffix('-1')}.log")
        with kept[-1].open("wb") as file:
            subprocess.run(["docker", "logs", "--timestamps", name], stdout=file, stderr=subprocess.STDOUT, timeout=60)
    return kept


@dataclass
class Compose:
    """The platform as somebody at its host has it, with these profiles and settings. Every command has a deadline."""

    profiles: str = PROFILES
    settings: dict[str, str] = field(default_factory=dict)
    demo_said: str = field(default="", repr=False)

    @cached_property
    def environment(self) -> dict[str, str]:
        image = {"CLICKHOUSE_IMAGE": f"shudl/clickhouse:{VERSION}", "SHUDL_PAGES": "1"}
        return {**os.environ, "COMPOSE_PROFILES": self.profiles, **image, **self.settings}

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

    def keep_logs(self, folder: Path) -> list[Path]:
        return keep_logs(PROJECT, folder)


@contextmanager
def demo_from_nothing(wanted: str, goal: str, platform: Compose) -> Iterator[Compose]:
    """``platform`` brought up by ``make demo RUNTIME=docker`` from empty volumes, and taken down at the end, volumes too."""
    with taken_down(wanted, goal, platform):
        platform.demo_said = platform.make("demo", "RUNTIME=docker", f"DEMO={DEMO}", timeout_s=DEMO_S)
        yield platform


@contextmanager
def taken_down(wanted: str, goal: str, platform: Compose) -> Iterator[None]:
    """Takes ``platform`` down at the end, volumes too, whatever was brought up.

    It is the one platform that docker/compose.yaml describes, so it is only done on demand, when the variable ``wanted`` is
    set, and never beside a platform that somebody uses. ``SHUDL_TEST_KEEP=1`` goes on with the one that runs. What failed on
    the way up leaves every container's log.
    """
    if not os.environ.get(wanted):
        pytest.skip(f"tests of the whole Compose platform run on demand: {goal} (it sets {wanted})")
    engine = platform.run("docker", "version", "--format", "{{.Server.Version}}")
    if engine.returncode:
        pytest.skip(f"no Docker engine: {engine.stdout.strip()}")
    keep = bool(os.environ.get("SHUDL_TEST_KEEP"))
    label = f"label=com.docker.compose.project={PROJECT}"
    there = platform.run("docker", "ps", "--all", "--quiet", "--filter", label).stdout.split()
    if there and not keep:
        pytest.fail(
            "a Compose platform is here already, which the tests would take down: make down, if it is not needed", pytrace=False
        )
    try:
        yield
    except BaseException as error:
        folder = settings.logs / "compose"
        platform.keep_logs(folder)
        error.add_note(f"The containers' logs are in {folder}")
        raise
    finally:
        if not keep:
            platform.run(str(PLATFORM), "compose", "down", "--volumes", "--remove-orphans", timeout_s=300)
