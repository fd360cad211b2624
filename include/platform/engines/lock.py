"""Makes the locks from what is pinned: requirements with hashes for each environment, checksums for each JVM artifact."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

from include.platform.engines import envs, jars, state
from include.platform.engines.jars import Artifact
from include.platform.engines.places import ROOT

JARS = state.HERE / "jars.toml"
PATRONI = ROOT / "docker" / "services" / "patroni" / "requirements.in"
"""What the image of PostgreSQL's cluster installs by itself."""
FILES_ONLY = ("native", "flink")
"""Environments of which only files are used: locked without dependencies."""


def make_locks() -> None:
    """Writes every lock anew. What is not pinned and still fits stays as it was locked."""
    os.chdir(ROOT)  # uv writes the sources' names as it is given them
    sources = [state.HERE / "tools.in", state.HERE / "build.in", ROOT / "requirements.in", PATRONI]
    sources += [state.HERE / f"{env}.in" for env in state.ENV_LOCKS if env != "airflow"]
    for source in sources:
        _say(f"locking {source.relative_to(ROOT)}")
        lock_requirements(source, source.with_suffix(".txt"))
    lock_jars(JARS, state.JARS_LOCK)


def lock_requirements(source: Path, target: Path) -> None:
    options = ["--universal", "--python-version", ".".join(map(str, state.PYTHONS[0])), "--generate-hashes"]
    options += ["--no-header", "--no-emit-index-url", "--no-emit-find-links", "--annotation-style", "line"]
    if source.stem in FILES_ONLY:
        options.append("--no-deps")
    envs.uv("pip", "compile", *options, source.relative_to(ROOT), "-o", target.relative_to(ROOT))


def lock_jars(source: Path, target: Path) -> None:
    """Resolves ``source`` (``jars.toml``) and writes each artifact's checksum and size.

    An artifact that was locked keeps its checksum; a new one is downloaded to take it.
    """
    old = {coordinate: entry for engine in state.jars_lock().values() for coordinate, entry in engine.items()}
    lines = ["# Made by `make lock` from jars.toml."]
    for engine, pinned in tomllib.loads(source.read_text()).items():
        lines += ["", f"[{engine}]"]
        artifacts = [Artifact.parse(coordinate) for coordinate in pinned.get("files", [])]
        artifacts += resolve([Artifact.parse(coordinate) for coordinate in pinned.get("resolve", [])])
        for artifact in sorted(artifacts):
            entry = old.get(artifact.coordinate)
            if entry is None:
                _say(f"locking {artifact.coordinate}")
                path = jars.fetch(artifact)
                entry = {"sha256": jars.sha256(path), "size": path.stat().st_size}
            lines.append(f'"{artifact.coordinate}" = {{ sha256 = "{entry["sha256"]}", size = {entry["size"]} }}')
    target.write_text("\n".join(lines) + "\n")


def resolve(artifacts: list[Artifact]) -> list[Artifact]:
    """``artifacts`` with all that they need at run time, by Maven's rules."""
    if not artifacts:
        return []
    context = jars.context()
    wanted = [context.create_dependency(":".join((a.group, a.name, a.version))) for a in artifacts]
    for dependency in wanted:
        dependency.raw = True  # else jgo imports each one's own dependencyManagement, as Maven does not
    inputs, others = context.resolver.resolve(wanted)
    runtime = [d for d in others if d.scope in ("compile", "runtime", None)]
    return [Artifact(d.groupId, d.artifactId, d.version, d.type, d.classifier) for d in [*inputs, *runtime]]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
