"""Pipeline files that a test writes."""

from __future__ import annotations

from pathlib import Path

from include.cdc.pipelines import PipelineError, load


def problems_of(tmp_path: Path, data: str | bytes) -> list[str]:
    """What is wrong with a file ``p.yml`` that says ``data``."""
    path = tmp_path / "p.yml"
    path.write_bytes(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)
    try:
        load(path)
    except PipelineError as error:
        return error.problems
    return []
