"""What DAGs make and others wait for."""

from airflow.sdk import Asset

PLATFORM = Asset("shudl://platform")
"""The platform, validated by ``platform_bootstrap``."""
