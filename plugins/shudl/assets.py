"""What DAGs make and others wait for."""

from airflow.sdk import Asset, AssetWatcher

from shudl.flink import JobsForgotten

PLATFORM = Asset("shudl://platform")
"""The platform, validated by ``platform_bootstrap``."""

FLINK_JOBS = Asset("shudl://flink/jobs", watchers=[AssetWatcher("forgotten_jobs", trigger=JobsForgotten())])
"""The jobs that Flink runs: an event of it says that it has forgotten some."""
