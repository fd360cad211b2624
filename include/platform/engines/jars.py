"""JVM artifacts: fetched by jgo into Maven's cache (``~/.m2/repository``, or ``M2_REPO``), trusted by checksum only."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
from jgo.config import GlobalSettings
from jgo.maven import Artifact as JgoArtifact
from jgo.maven import MavenContext, PythonResolver

from include.platform.engines.errors import EngineError
from include.platform.engines.places import places
from include.platform.engines.progress import Row

ATTEMPTS = 3


@dataclass(frozen=True, order=True)
class Artifact:
    """A file of a Maven repository; ``sha256`` and ``size`` (bytes) are what the lock says."""

    group: str
    name: str
    version: str
    packaging: str = "jar"
    classifier: str = ""
    sha256: str = ""
    size: int = 0

    @classmethod
    def parse(cls, coordinate: str, **locked: str | int) -> Artifact:
        """From ``group:artifact:version[:packaging[:classifier]]``."""
        parts = coordinate.split(":")
        if not 3 <= len(parts) <= 5:
            raise EngineError(f"{coordinate}: not of the form group:artifact:version[:packaging[:classifier]]")
        return cls(*parts, **locked)  # type: ignore[arg-type]

    @property
    def coordinate(self) -> str:
        return ":".join(filter(None, (self.group, self.name, self.version, self.packaging, self.classifier)))

    def of(self, context: MavenContext) -> JgoArtifact:
        return context.project(self.group, self.name).at_version(self.version).artifact(self.classifier, self.packaging)


def context(row: Row | None = None, cache: Path | None = None) -> MavenContext:
    """jgo's view of Maven: the user's repositories and cache, downloads shown in ``row``."""

    @contextmanager
    def show(_name: str, _size: int) -> Iterator:
        yield row.advance if row else lambda count: None

    repositories = {**MavenContext().remote_repos, **GlobalSettings.load().repositories}
    return MavenContext(PythonResolver(progress_callback=show), cache, remote_repos=repositories, timeout=60)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(artifact: Artifact, row: Row | None = None) -> Path:
    """The artifact's file in Maven's cache, downloaded unless it is there with the locked checksum.

    An artifact without ``sha256`` (only while locking) is taken as it comes. Raises :class:`EngineError` when no
    repository answers, or when what they send is not what was locked.
    """
    cached = artifact.of(context()).cached_path
    assert cached is not None
    if cached.exists() and artifact.sha256 in ("", sha256(cached)):
        if row:
            row.advance(artifact.size)
        return cached
    staged_context = context(row, places.installed / "tmp" / "jars")
    staged = artifact.of(staged_context)
    path = staged.cached_path
    assert path is not None
    for attempt in range(1, ATTEMPTS + 1):
        path.unlink(missing_ok=True)
        try:
            staged_context.resolver.download(staged)
        except requests.RequestException as error:
            failure = f"cannot be downloaded. Check the network or the proxy and run again. ({error})"
        except RuntimeError as error:
            failure = f"no repository has it: {error}"
        else:
            found = sha256(path)
            if artifact.sha256 in ("", found):
                _move(path, cached)
                return cached
            failure = (
                f"what was downloaded has the SHA-256 {found} and not the locked {artifact.sha256}; it was not used. "
                "Run the same command again; if it stays so, whatever serves your packages changes them."
            )
        if row:
            row.note(f"trying {artifact.name} again")
        time.sleep(attempt)
    path.unlink(missing_ok=True)
    raise EngineError(f"{artifact.coordinate}: {failure}")


def _move(source: Path, target: Path) -> None:
    """Puts ``source`` at ``target`` in one step, across disks too."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        shutil.move(source, partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
