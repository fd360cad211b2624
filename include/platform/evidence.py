"""What runs proved, kept as JSON files that people and tests read."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from include.platform.settings import Settings, settings

KEPT_RUNS = 200
"""How many files a DAG keeps; the oldest go first."""


def write_evidence(dag_id: str, run_id: str, data: dict[str, Any], s: Settings = settings) -> Path:
    """Write ``evidence/<dag_id>/<run_id>.json`` as a whole or not at all; a second call replaces it."""
    folder = s.evidence / dag_id
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run_id.replace('/', '_')}.json"
    new = path.with_suffix(".json.new")
    head = {"dag_id": dag_id, "run_id": run_id, "written_at": datetime.now(UTC).isoformat(timespec="seconds")}
    new.write_text(json.dumps({**head, **data}, indent=2, default=str) + "\n")
    os.replace(new, path)
    for old in sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime)[:-KEPT_RUNS]:
        old.unlink(missing_ok=True)
    return path


def latest_evidence(dag_id: str, s: Settings = settings) -> dict[str, Any] | None:
    """What the DAG's last run wrote; None when none has."""
    files = sorted((s.evidence / dag_id).glob("*.json"), key=lambda file: file.stat().st_mtime)
    return json.loads(files[-1].read_text()) if files else None
