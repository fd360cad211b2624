"""What a drill can be about: read by the DAG files, so it imports nothing heavy."""

from __future__ import annotations

from include.platform.settings import settings

POSTGRES_FAULTS = ("switchover", "kill")

STREAM = ("etcd", "haproxy", "standby") if settings.docker else ("postgres",)
STREAM += ("s3", "kafka", "nessie", "connect", "flink-taskmanager")
"""What changes flow through: services of the catalogue; of etcd one member, and ``standby``, PostgreSQL's."""
SERVICES = (*STREAM, "registry", "trino", "clickhouse")
