"""External services (``SHUDL_EXTERNAL``) as Compose has them: ``docker/external.yaml``, which goes over ``compose.yaml``.

It takes the containers of external services away (``scale: 0``, which is also what others do not wait for), and lets those out
of Docker that have to reach them.
"""

from __future__ import annotations

from typing import Any

import yaml

from include.platform.catalog import docker_services, externals
from include.platform.compose.dotenv import chosen_profiles
from include.platform.compose.model import Compose
from include.platform.compose.problems import ComposeError, Problem
from include.platform.external import ADDRESSES
from include.platform.settings import SettingsError, external_pairs

FILE = "external.yaml"
HELPERS = {"kafka": ("kafka-access",), "patroni": ("fencer",)}
"""Containers that only look after a service of ours."""
SERVICES = docker_services(ha=True)
"""With all containers that there may be."""
OUTWARD = frozenset({"edge", "sources"})
"""The networks that lead out of Docker."""
ENGINES = "engines"
"""The profile of nessie-proxy."""
STREAMS_AND_JOBS = frozenset({"kafka", "registry", "s3", "nessie"})
"""What Flink's and Spark's processes reach by themselves."""


def services(text: str) -> dict[str, str]:
    """Service → connection, of ``SHUDL_EXTERNAL``. Raises :class:`ComposeError`."""
    try:
        return externals(external_pairs(text), SERVICES)
    except SettingsError as error:
        raise ComposeError(str(error)) from None


def containers(text: str) -> set[str]:
    """What Compose calls the containers that are not started, those told of in ``SHUDL_EXTERNAL``."""
    gone = services(text)
    by_name = {svc.name: svc.containers or (svc.name,) for svc in SERVICES}
    return {part for name in gone for part in (*by_name[name], *HELPERS.get(name, ()))}


def render(compose: Compose, text: str) -> str:
    """``external.yaml`` for ``SHUDL_EXTERNAL=text``. Its first line is what :file:`platform.sh` knows it by."""
    gone = containers(text)
    over: dict[str, Any] = {name: {"scale": 0} for name in compose.services if name in gone}
    if STREAMS_AND_JOBS & set(services(text)):
        for name, service in compose.services.items():
            image = str(service.get("image", ""))
            closed = not OUTWARD & set(service.get("networks", ()))
            if name not in gone and closed and image.startswith(("shudl/flink:", "shudl/spark:")):
                over[name] = {"networks": ["sources"]}
    body = yaml.safe_dump({"services": over}, sort_keys=False, default_flow_style=None)
    return f"# SHUDL_EXTERNAL={text}\n# Made by docker/platform.sh; what it says comes from that setting.\n{body}"


def problems(settings: dict[str, str], defaults: dict[str, str]) -> list[Problem]:
    """Names that are none, and addresses that do not follow what is external. Connections are looked up by Airflow."""
    try:
        gone = services(settings.get("SHUDL_EXTERNAL", ""))
    except ComposeError as error:
        return [Problem(str(error), "correct SHUDL_EXTERNAL in docker/.env")]
    found = []
    if "trino" in gone and "nessie" not in gone and ENGINES not in chosen_profiles(settings):
        found.append(
            Problem(
                "trino is external, and our Nessie lets in no engine that is elsewhere",
                f"add {ENGINES} to COMPOSE_PROFILES in docker/.env; docs/scaling.md says what that Trino needs",
            )
        )
    for name, service in ((address.name, address.service) for address in ADDRESSES):
        if name not in settings:
            continue
        own = settings[name] == defaults[name]
        if service in gone and own:
            way_out = f"set {name} in docker/.env to the address that connection {gone[service]} has"
            found.append(Problem(f"{service} is external, and {name}={settings[name]} does not say where it is", way_out))
        elif service not in gone and not own:
            way_out = f"name {service} there (docs/scaling.md), or set {name}={defaults[name]}"
            found.append(Problem(f"{name}={settings[name]}, but {service} is not in SHUDL_EXTERNAL", way_out))
    return found
