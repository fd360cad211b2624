"""The dbt project: where it is, what its environment needs, and what its models read and make.

One project, two targets: ``trino`` builds the marts in the lake, ``clickhouse`` copies what is served. A target's
manifest is made by :mod:`include.serving.manifest`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from include.platform.endpoints import Endpoints
from include.platform.settings import ROOT, Settings, settings

PROJECT = ROOT / "dbt_project"
PROFILES = PROJECT / "profiles.yml"
PROFILE = "shudl"
TARGETS = ("trino", "clickhouse")
THREADS = {"trino": 3, "clickhouse": 2}
"""How many of a target's models are built at once."""
MANIFEST = "manifest.json"
TRUST = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
"""Variables by which dbt's adapters, like this process, trust an authority of the platform's own."""
PARTIAL_PARSE = "partial_parse.msgpack"
"""Lies beside the manifest; with it a run of dbt need not parse the project again."""


class ManifestMissing(RuntimeError):
    """A target's manifest was not made yet."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is missing: run `./shudl up`, which makes it, or `python -m include.serving.manifest` alone")


def manifest_path(target: str, s: Settings = settings) -> Path:
    """Where the manifest of ``target`` is. Raises :class:`ManifestMissing` when it was not made."""
    path = folder(target, s) / MANIFEST
    if not path.exists():
        raise ManifestMissing(path)
    return path


def folder(target: str, s: Settings = settings) -> Path:
    """Where what was parsed for ``target`` is kept, for all platforms of an installation."""
    return s.installed / "dbt" / target


def executable(s: Settings = settings) -> Path:
    return s.python("dbt").with_name("dbt")


def environment(endpoints: Endpoints, s: Settings = settings) -> dict[str, str]:
    """The variables that dbt and ``profiles.yml`` read. Holds passwords: give it to a process, keep it nowhere."""
    trino, clickhouse = endpoints["shudl_trino"], endpoints["shudl_clickhouse"]
    return {
        "DBT_TRINO_METHOD": "ldap" if trino.password else "none",
        "DBT_TRINO_HOST": trino.host,
        "DBT_TRINO_PORT": str(trino.port),
        "DBT_TRINO_SCHEME": trino.extra.get("scheme", "http"),
        "DBT_TRINO_USER": trino.login,
        "DBT_TRINO_THREADS": str(THREADS["trino"]),
        "DBT_ENV_SECRET_TRINO_PASSWORD": trino.password,
        "DBT_CLICKHOUSE_HOST": clickhouse.host,
        "DBT_CLICKHOUSE_PORT": str(clickhouse.port),
        "DBT_CLICKHOUSE_SECURE": str(clickhouse.extra.get("scheme", "http") == "https"),
        "DBT_CLICKHOUSE_USER": clickhouse.login,
        "DBT_CLICKHOUSE_THREADS": str(THREADS["clickhouse"]),
        "DBT_ENV_SECRET_CLICKHOUSE_PASSWORD": clickhouse.password,
        "DBT_LOG_PATH": str(s.logs / "dbt"),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "False",
        "DO_NOT_TRACK": "1",
        **{name: os.environ[name] for name in TRUST if name in os.environ},
    }


def served_tables(s: Settings = settings, tag: str = "") -> dict[str, list[str]]:
    """ClickHouse table → the lake's tables (``namespace.table``) that its model reads, from the manifest.

    Of the models that have ``tag``; without it of those that have none.
    """
    manifest = _manifest("clickhouse", s)
    models = [model for model in _models(manifest) if (tag in model["tags"] if tag else not model["tags"])]
    return {model["alias"]: _sources(manifest, model) for model in models}


def tags(target: str, s: Settings = settings) -> list[str]:
    """The tags of the target's models, from the manifest."""
    return sorted({tag for model in _models(_manifest(target, s)) for tag in model["tags"]})


def _manifest(target: str, s: Settings) -> dict[str, Any]:
    return json.loads(manifest_path(target, s).read_text())


def _models(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [node for node in manifest["nodes"].values() if node["resource_type"] == "model"]


def _sources(manifest: Mapping[str, Any], model: Mapping[str, Any]) -> list[str]:
    sources = [manifest["sources"][key] for key in model["depends_on"]["nodes"] if key in manifest["sources"]]
    return sorted(f"{source['schema']}.{source['identifier']}" for source in sources)
