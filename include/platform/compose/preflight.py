"""``make check-docker``: everything that would keep the Compose platform from starting, said at once and before it starts."""

from __future__ import annotations

import re
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

from include.platform.compose import certificates, dotenv, external, secrets
from include.platform.compose.facts import Facts
from include.platform.compose.model import CORE, Compose
from include.platform.compose.problems import Problem

DOCKER_LEAST = (25, 0)
"""Older engines refuse the health checks' ``start_interval``."""

COMPOSE_LEAST = (2, 24)
"""Older ones do not know ``start_interval``."""

GB = 10**9
HA = "ha"
"""The profile with more than one of each service that can be several."""


def check(
    folder: Path, facts: Facts, now: datetime | None = None, meminfo: Path = Path("/proc/meminfo")
) -> tuple[list[Problem], list[Problem]]:
    """What keeps the platform from starting, and what will soon. ``folder`` is ``docker/``.

    Raises :class:`~include.platform.compose.problems.ComposeError` when ``compose.yaml`` itself cannot be used.
    """
    compose = Compose.read(folder / "compose.yaml")
    settings = dotenv.effective(folder, facts.shell)
    wrong_settings = dotenv.problems(folder, facts.shell)
    wrong_certificates, soon = certificates.problems(folder / "certificates", compose, public_names(settings), now)
    found = [
        *versions(facts),
        *wrong_settings,
        *profiles(compose, settings),
        *kafka_quorum(compose, facts, settings),
        *([] if wrong_settings else external.problems(settings, dotenv.read(folder / ".env.example"))),
        *docker_socket(facts, settings),
        *([] if wrong_settings else refused(facts)),
        *secrets.problems(folder / "secrets", compose),
        *wrong_certificates,
        *memory(compose, facts, settings, meminfo),
        *neighbours(compose, facts),
        *ports(compose, facts, settings),
        *images(facts),
    ]
    return found, soon


def public_names(settings: dict[str, str]) -> list[str]:
    """``SHUDL_PUBLIC_NAMES``; none while one of them is wrong, which :func:`dotenv.problems` says."""
    try:
        return dotenv.host_names(settings.get("SHUDL_PUBLIC_NAMES", ""))
    except ValueError:
        return []


def versions(facts: Facts) -> list[Problem]:
    found = []
    for kind, name, least, way_out in (
        ("docker", "Docker Engine", DOCKER_LEAST, "https://docs.docker.com/engine/install/"),
        ("compose", "Docker Compose", COMPOSE_LEAST, "https://docs.docker.com/compose/install/linux/"),
    ):
        told = facts.one(kind)
        match = re.match(r"v?(\d+)\.(\d+)", told)
        if match is None or (int(match[1]), int(match[2])) < least:
            needed = ".".join(map(str, least))
            found.append(
                Problem(f"{name} {told or '(unknown version)'} is older than {needed}", f"install a newer one: {way_out}")
            )
    return found


def profiles(compose: Compose, settings: dict[str, str]) -> list[Problem]:
    """Profiles that no service has: Compose would start without a word what it starts without a profile."""
    known = compose.profiles | {CORE}
    return [
        Problem(f"COMPOSE_PROFILES={name}: no such profile", f"the profiles are {', '.join(sorted(known))}")
        for name in sorted(dotenv.chosen_profiles(settings) - known)
    ]


def kafka_quorum(compose: Compose, facts: Facts, settings: dict[str, str]) -> list[Problem]:
    """Kafka's brokers decide by majority, and all that ever joined count: one of three cannot go on alone."""
    if HA in dotenv.chosen_profiles(settings) or f"{compose.project}_kafka2" not in facts.all("volume"):
        return []
    return [
        Problem(
            f"Kafka has three brokers since it ran with the profile {HA}, and COMPOSE_PROFILES is without it: one is no majority",
            f"add {HA} to COMPOSE_PROFILES in docker/.env; docs/scaling.md has the way back",
        )
    ]


def docker_socket(facts: Facts, settings: dict[str, str]) -> list[Problem]:
    """Whether the filter that lets Airflow start containers can open Docker's socket."""
    path, _, gid = facts.one("socket").partition("\t")
    if not gid:
        return [
            Problem(f"DOCKER_SOCKET={path}: no socket there", "set DOCKER_SOCKET in docker/.env to the path of Docker's socket")
        ]
    told = settings.get("DOCKER_GID")
    if told and told != gid:
        return [
            Problem(
                f"DOCKER_GID={told}, but the group of {path} is {gid}", f"set DOCKER_GID={gid} in docker/.env, or leave it empty"
            )
        ]
    return []


def refused(facts: Facts) -> list[Problem]:
    text = " ".join(facts.all("refused")).strip()
    return [Problem(f"Compose refuses its configuration: {text}", "correct what it names")] if text else []


def memory(compose: Compose, facts: Facts, settings: dict[str, str], meminfo: Path) -> list[Problem]:
    """Too little memory in the machine; or too little of it free, while nothing of the platform runs."""
    chosen = dotenv.chosen_profiles(settings)
    needed = round(compose.memory_gb(chosen) * _here(facts.config), 1)
    kilobytes = {name: int(rest.split()[0]) for name, rest in re.findall(r"(\w+):\s+(.*)", meminfo.read_text())}
    total, free = (kilobytes[name] * 1024 / GB for name in ("MemTotal", "MemAvailable"))
    told = f"the profile {','.join(sorted(chosen)) or CORE} needs {needed:g} GB of memory"
    smaller = "" if chosen <= {CORE} else ", or choose a smaller profile: COMPOSE_PROFILES=core in docker/.env"
    if total < needed:
        return [Problem(f"{told}, Docker's machine has {total:.1f} GB", f"use a larger machine{smaller}")]
    if free < needed and not any(container.project == compose.project for container in facts.containers):
        return [Problem(f"{told}, {free:.1f} of {total:.1f} GB are free", f"end other programs{smaller}")]
    return []


def _here(config: dict[str, Any]) -> float:
    """The share of the services' memory that is taken here: external ones take none."""
    limits = {name: int(service.get("mem_limit") or 0) for name, service in config.get("services", {}).items()}
    return sum(limits[name] for name in _created(config)) / sum(limits.values()) if any(limits.values()) else 1.0


def neighbours(compose: Compose, facts: Facts) -> list[Problem]:
    """Containers of another checkout under the same project's name, which Compose would take for this one's."""
    here = facts.one("folder")
    others = {c.folder for c in facts.containers if c.project == compose.project and c.folder not in ("", here)}
    return [
        Problem(f"the platform of another checkout runs: {folder}", f"stop it there: make -C {Path(folder).parent} down")
        for folder in sorted(others)
    ]


def _created(config: dict[str, Any]) -> dict[str, Any]:
    """The services that get containers: external ones get none."""
    return {name: service for name, service in config.get("services", {}).items() if service.get("scale") != 0}


def _published(config: dict[str, Any]) -> dict[tuple[str, int], list[str]]:
    """Address and port on the host → services that are to be reached there."""
    found: dict[tuple[str, int], list[str]] = defaultdict(list)
    for name, service in _created(config).items():
        for port in service.get("ports", ()):
            if str(port.get("published", "")).isdecimal():
                found[port.get("host_ip") or "0.0.0.0", int(port["published"])].append(name)
    return found


def ports(compose: Compose, facts: Facts, settings: dict[str, str]) -> list[Problem]:
    """Ports that another program holds; this project's own containers do not count."""
    ours = {port for container in facts.containers if container.project == compose.project for port in container.ports}
    theirs = {port for container in facts.containers if container.project != compose.project for port in container.ports}
    found = []
    for (address, port), services in _published(facts.config).items():
        if port in ours or not (port in theirs or any(_clash(address, port, *other) for other in facts.listeners)):
            continue
        holder = facts.holder(port) or "another program, whose name only root can see"
        setting = next((n for n, v in settings.items() if n.endswith("_PUBLISHED_PORT") and v == str(port)), None)
        other = f"set {setting} in docker/.env to a free port" if setting else "publish it elsewhere in docker/compose.yaml"
        found.append(Problem(f"port {port} ({', '.join(services)}) is taken by {holder}", f"end that program, or {other}"))
    return found


def _clash(address: str, port: int, other_address: str, other_port: int) -> bool:
    everywhere = ("0.0.0.0", "::")
    return port == other_port and (address == other_address or address in everywhere or other_address in everywhere)


def images(facts: Facts) -> list[Problem]:
    """Images of ours that are not built; those of others are pulled when they are needed."""
    wanted = {service.get("image", "") for service in _created(facts.config).values()}
    missing = sorted(image for image in wanted - set(facts.all("image")) if image.startswith("shudl/"))
    return [Problem(f"images that are not built: {', '.join(missing)}", "make images")] if missing else []
