"""A folder like ``docker/`` for tests of what happens before the Compose platform starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from include.platform.compose import certificates, files, secrets
from include.platform.compose.model import Compose

ME = files.User(os.getuid(), os.getgid())

COMPOSE = """
name: shudl
x-shudl-memory: {core: 11, access: 0.6, monitoring: 0.3}
services:
  etcd1:
    image: shudl/etcd:0.1.0
    secrets: [ca.crt, {source: etcd1.crt, target: tls.crt}, {source: etcd1.key, target: tls.key}]
  patroni1:
    image: shudl/patroni:0.1.0
    secrets: [ca.crt, {source: patroni1.crt, target: tls.crt}, {source: patroni1.key, target: tls.key}, postgres_superuser]
  haproxy:
    image: shudl/haproxy:0.1.0
    ports: ["127.0.0.1:15000:15000"]
    secrets: [ca.crt]
  trino:
    image: shudl/trino:0.1.0
    ports: ["127.0.0.1:8080:8080"]
    secrets: [ca.crt, truststore.p12, {source: trino.crt, target: tls.crt}, {source: trino.key, target: tls.key}, trino]
  cli:
    image: shudl/airflow:0.1.0
    profiles: [cli]
    secrets: [ca.crt, trino]
  keycloak:
    image: shudl/keycloak:0.1.0
    profiles: [access, full]
secrets:
  ca.crt: {file: ./certificates/ca.crt}
  truststore.p12: {file: ./certificates/truststore.p12}
  etcd1.crt: {file: ./certificates/etcd1.crt}
  etcd1.key: {file: ./certificates/etcd1.key}
  patroni1.crt: {file: ./certificates/patroni1.crt}
  patroni1.key: {file: ./certificates/patroni1.key}
  trino.crt: {file: ./certificates/trino.crt}
  trino.key: {file: ./certificates/trino.key}
  postgres_superuser: {file: ./secrets/postgres_superuser}
  trino: {file: ./secrets/trino}
"""

EXAMPLE = """
VERSION=
COMPOSE_PROFILES=
SHUDL_BIND=127.0.0.1
SHUDL_PUBLIC_NAMES=
TRINO_PUBLISHED_PORT=8080
POSTGRES_WRITE_PUBLISHED_PORT=15000
TRINO_HEAP=1280m
TRINO_MEMORY=2560m
TRINO_QUERY_MEMORY=600MB
CLICKHOUSE_IMAGE=clickhouse/clickhouse-server:25.8
DOCKER_SOCKET=
DOCKER_GID=
"""


def make(folder: Path) -> Compose:
    """``folder`` with compose.yaml and .env.example, without secrets and certificates."""
    folder.mkdir(exist_ok=True)
    (folder / "compose.yaml").write_text(COMPOSE)
    (folder / ".env.example").write_text(EXAMPLE)
    return Compose.read(folder / "compose.yaml")


def run_services_as_me(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only root may give files away: the services' user is who runs the tests."""
    for module in (files, secrets, certificates):
        monkeypatch.setattr(module, "SERVICE_ID", os.getuid())
