"""What DAGs make and others wait for."""

from airflow.sdk import Asset, AssetWatcher

from shudl.flink import JobsForgotten

PLATFORM = Asset("shudl://platform")
"""The platform, validated by ``platform_bootstrap``."""

FLINK_JOBS = Asset("shudl://flink/jobs", watchers=[AssetWatcher("forgotten_jobs", trigger=JobsForgotten())])
"""The jobs that Flink runs: an event of it says that it has forgotten some."""


def lake_table(name: str) -> Asset:
    """A table of the lake, ``raw.weather``: what writes it says so, and what reads it may be scheduled by it."""
    return Asset(f"shudl://lake/{name}")
