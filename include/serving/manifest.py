"""Makes the dbt project's manifests, from which Airflow draws publish_flights: ``python -m include.serving.manifest``.

Nothing is done for a target whose project files and dbt are what they were. No service has to run.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from include.platform.endpoints import own_endpoints
from include.platform.settings import ROOT, Settings, settings
from include.serving.dbt import MANIFEST, PARTIAL_PARSE, PROJECT, TARGETS, environment, executable, folder

TIMEOUT_S = 180
KEPT = (PARTIAL_PARSE, MANIFEST)
FINGERPRINT = "fingerprint"
DBT_LOCK = ROOT / "include" / "platform" / "engines" / "dbt.txt"


class ManifestError(RuntimeError):
    """dbt cannot read the project; the text is dbt's own."""


def fingerprint() -> str:
    """A hash of everything that the manifests follow from."""
    files = sorted(path for name in ("models", "macros", "tests") for path in (PROJECT / name).rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for path in [*files, *sorted(PROJECT.glob("*.yml")), DBT_LOCK]:
        digest.update(f"{path.relative_to(ROOT)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def make_manifests(s: Settings = settings) -> list[str]:
    """Make the manifest of each target whose project has changed; the targets made. Raises :class:`ManifestError`."""
    wanted = fingerprint()
    stale = [target for target in TARGETS if _made(s, target) != wanted]
    parsing = [_Parse(s, target) for target in stale]
    if errors := [error for parse in parsing if (error := parse.keep(wanted))]:
        raise ManifestError("\n".join(errors))
    return stale


def _made(s: Settings, target: str) -> str:
    """The fingerprint of what is there; empty when a file is missing."""
    made = folder(target, s)
    return (made / FINGERPRINT).read_text() if all((made / name).exists() for name in (*KEPT, FINGERPRINT)) else ""


class _Parse:
    """A running ``dbt parse``."""

    def __init__(self, s: Settings, target: str) -> None:
        self.folder = folder(target, s)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.output = tempfile.TemporaryDirectory(dir=self.folder)
        command = [str(executable(s)), "--quiet", "parse", "--no-partial-parse", "--target", target]
        command += ["--profiles-dir", str(PROJECT), "--target-path", self.output.name]
        env = {**os.environ, **environment(own_endpoints(s), s)}
        self.process = subprocess.Popen(
            command, cwd=PROJECT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def keep(self, wanted: str) -> str:
        """Wait for the end and put the files in their place; what went wrong, or an empty text."""
        with self.output as output:
            try:
                text, _ = self.process.communicate(timeout=TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                text = f"{self.process.communicate()[0]}\nnot done after {TIMEOUT_S} s"
            if self.process.returncode:
                return f"{PROJECT.name}, target {self.folder.name}: dbt parse failed:\n{text}"
            (Path(output) / FINGERPRINT).write_text(wanted)
            for name in (*KEPT, FINGERPRINT):
                os.replace(Path(output) / name, self.folder / name)
        return ""


if __name__ == "__main__":
    try:
        print("manifests:", ", ".join(make_manifests()) or "unchanged")
    except ManifestError as failure:
        sys.exit(str(failure))
