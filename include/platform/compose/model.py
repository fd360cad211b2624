"""What ``compose.yaml`` says, as far as secrets, certificates and the checks before a start need it.

The file's ``secrets:`` section is the list: an entry with ``file: ./secrets/<name>`` is a secret, one with
``file: ./certificates/<name>.crt`` or ``.key`` half of a certificate's pair.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from include.platform.compose.problems import ComposeError

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
SECRET = re.compile(rf"\./secrets/({NAME})")
CERTIFICATE = re.compile(rf"\./certificates/({NAME})")
CA = "ca"
TRUST, TRUSTSTORE = "trust.crt", "truststore.p12"
"""What clients trust: the platform's authority and those of external services; for JVMs the same."""
CORE, FULL = "core", "full"


@dataclass(frozen=True)
class Compose:
    """``secrets`` and ``certificates`` are names in the file's order; ``users`` gives the services that mount a file."""

    document: dict[str, Any]
    secrets: tuple[str, ...]
    certificates: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Compose:
        """Raises :class:`ComposeError` when the file cannot be read or its certificates are not pairs."""
        try:
            document = yaml.safe_load(path.read_text())
        except FileNotFoundError:
            raise ComposeError(
                f"docker/{path.name} is not here: run this from a checkout that Docker can mount (the engine on this machine)"
            ) from None
        except (OSError, yaml.YAMLError) as error:
            raise ComposeError(f"docker/{path.name} cannot be read: {error}") from None
        if not isinstance(document, dict) or not isinstance(document.get("services"), dict):
            raise ComposeError(f"docker/{path.name} has no section services: restore it with git checkout docker/{path.name}")
        files = [str(entry.get("file", "")) for entry in (document.get("secrets") or {}).values()]
        secrets = [match[1] for file in files if (match := SECRET.fullmatch(file))]
        halves = [match[1] for file in files if (match := CERTIFICATE.fullmatch(file))]
        return cls(document, tuple(dict.fromkeys(secrets)), _pairs(halves))

    @property
    def services(self) -> dict[str, Any]:
        return self.document["services"]

    @property
    def profiles(self) -> set[str]:
        return {profile for service in self.services.values() for profile in service.get("profiles", ())}

    @property
    def apart(self) -> set[str]:
        """The profiles that are not in ``full``."""
        lists = [service.get("profiles", ()) for service in self.services.values()]
        return self.profiles - {profile for profiles in lists if FULL in profiles for profile in profiles}

    def users(self, file: str) -> list[str]:
        """Services that mount ``file``, named as in the ``secrets:`` section (``./secrets/trino``)."""
        keys = {key for key, entry in self.document["secrets"].items() if entry.get("file") == file}
        return [name for name, service in self.services.items() if keys & set(map(_source, service.get("secrets", ())))]

    def published(self, service: str) -> bool:
        return bool(self.services.get(service, {}).get("ports"))

    @property
    def project(self) -> str:
        return self.document["name"]

    def memory_gb(self, chosen: set[str]) -> float:
        """GB that the platform takes with the profiles ``chosen``: ``x-shudl-memory`` states those of ``core``, which always
        runs, and what each profile adds; ``full`` is all but those :attr:`apart`. Raises :class:`ComposeError` without it.
        """
        stated = self.document.get("x-shudl-memory")
        if not isinstance(stated, dict) or CORE not in stated:
            raise ComposeError(
                "docker/compose.yaml: no x-shudl-memory with core, the GB of memory that the platform takes: "
                "restore it with git checkout docker/compose.yaml"
            )
        wanted = {CORE, *chosen} & set(stated)
        if FULL in chosen:
            wanted |= set(stated) - self.apart
        return sum(float(stated[name]) for name in wanted)


def _source(entry: str | dict[str, str]) -> str:
    return entry if isinstance(entry, str) else entry["source"]


def _pairs(files: list[str]) -> tuple[str, ...]:
    names: dict[str, set[str]] = {}
    for file in files:
        if file in ("ca.crt", TRUST, TRUSTSTORE):
            continue
        name, _, kind = file.rpartition(".")
        if name == CA or kind not in ("crt", "key"):
            raise ComposeError(
                f"docker/compose.yaml: ./certificates/{file} is mounted; only ca.crt, {TRUST}, {TRUSTSTORE} and pairs "
                "<name>.crt, <name>.key may be, and never the authority's key: remove that secret"
            )
        names.setdefault(name, set()).add(kind)
    for name, kinds in names.items():
        if len(kinds) == 1:
            (kind,) = kinds
            other = {"crt": "key", "key": "crt"}[kind]
            raise ComposeError(
                f"docker/compose.yaml: ./certificates/{name}.{kind} has no {name}.{other} beside it: add that secret"
            )
    return tuple(names)
