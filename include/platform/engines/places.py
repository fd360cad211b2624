"""Where environments and engines are installed: ``SHUDL_INSTALL``, else ``SHUDL_HOME``, else ``<checkout>/.shudl``.

The installer knows nothing else of the settings, so that the image ``engines`` is made anew for new locks only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True)
class Places:
    """An installation. Folders are made when first asked for, but ``folder`` itself is as it is."""

    folder: Path

    @classmethod
    def from_env(cls) -> Places:
        named = os.environ.get("SHUDL_INSTALL") or os.environ.get("SHUDL_HOME") or ROOT / ".shudl"
        return cls(Path(named).expanduser().absolute())

    @cached_property
    def installed(self) -> Path:
        return _made(self.folder)

    @cached_property
    def envs(self) -> Path:
        return _made(self.installed / "envs")

    @cached_property
    def engines(self) -> Path:
        return _made(self.installed / "engines")

    def python(self, env: str) -> Path:
        return self.envs / env / "bin" / "python"


places = Places.from_env()
