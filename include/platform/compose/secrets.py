"""``make secrets``: a random value for every secret that ``compose.yaml`` names and that has none.

A value is never printed and never replaced, unless its name is given (``make secrets ROTATE="trino kafka_flink"``).
"""

from __future__ import annotations

import secrets as random_secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from include.platform.compose.files import SERVICE_ID, SHARED, User, missing, set_right, unusable, write
from include.platform.compose.model import Compose
from include.platform.compose.problems import ComposeError, Problem

_ROLE = "PostgreSQL takes it at its first start only: change the role's password as well (ALTER ROLE), before the restart"
BEYOND_RESTART = {
    "airflow_db_airflow": _ROLE,
    "airflow_fernet": "Airflow can no longer read the connections that it stored encrypted",
    "airflow_db_superuser": _ROLE,
    "grafana_admin": "Grafana takes it at its first start only: change the admin's password in Grafana as well",
    "keycloak_admin": "Keycloak takes it at its first start only: change the admin's password in Keycloak as well",
    "oidc_admin": "Keycloak takes it for the realm's first user only: change the password of admin in the realm as well",
    "mask_salt": "masked columns get other values from now on: rows from before no longer join with rows from after",
}
"""What a new value means beyond a restart."""


@dataclass
class Made:
    """Names only. ``opened``: kept, with owner and mode set right; ``problems``: what is there and cannot be used."""

    made: list[str] = field(default_factory=list)
    rotated: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def make(folder: Path, compose: Compose, user: User, rotate: Iterable[str] = ()) -> Made:
    """Make what is missing in ``folder`` and replace what ``rotate`` names.

    Raises :class:`ComposeError`, before anything is written, when ``rotate`` names what is no secret.
    """
    rotate = list(dict.fromkeys(rotate))
    if unknown := [name for name in rotate if name not in compose.secrets]:
        raise ComposeError(f"ROTATE={' '.join(unknown)}: no such secret; the secrets are {', '.join(compose.secrets)}")
    folder.mkdir(mode=0o750, exist_ok=True)
    done = Made()
    for name in compose.secrets:
        path = folder / name
        value = random_secrets.token_hex(20).encode()
        if path.is_symlink() or path.is_dir():
            done.problems.append(_problem(path))
        elif not path.exists():
            write(path, value, SHARED, SERVICE_ID, user.gid)
            done.made.append(name)
        elif name in rotate:
            write(path, value, SHARED, SERVICE_ID, user.gid, replace=True)
            done.rotated.append(name)
        else:
            if set_right(path, SHARED, SERVICE_ID, user.gid):
                done.opened.append(name)
            if problem := _problem(path):
                done.problems.append(problem)
            else:
                done.kept.append(name)
    return done


def problems(folder: Path, compose: Compose) -> list[Problem]:
    """What is missing or cannot be used."""
    paths = [folder / name for name in compose.secrets]
    there = [path for path in paths if path.exists() or path.is_symlink()]
    return missing(paths, "secrets") + [problem for path in there if (problem := _problem(path))]


def after_rotation(compose: Compose, names: Iterable[str]) -> list[str]:
    """What is to be done so that new values are used everywhere, a line each."""
    lines = [f"{name}: {BEYOND_RESTART[name]}" for name in names if name in BEYOND_RESTART]
    services = dict.fromkeys(service for name in names for service in compose.users(f"./secrets/{name}"))
    if services:
        lines.append(f"restart what reads them: docker/platform.sh compose restart {' '.join(services)}")
    return lines


def _problem(path: Path) -> Problem | None:
    return unusable(path, "secrets")
