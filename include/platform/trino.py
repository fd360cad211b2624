"""Connections to Trino."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from include.platform.endpoints import Endpoints

if TYPE_CHECKING:
    from trino.dbapi import Connection


def connect(endpoints: Endpoints, catalog: str, timeout_s: float = 120) -> closing[Connection]:
    """A context manager of one DB-API connection to ``catalog``; statements that run longer than ``timeout_s`` are ended."""
    from trino.auth import BasicAuthentication
    from trino.dbapi import connect as trino_connect

    endpoint = endpoints["shudl_trino"]
    return closing(
        trino_connect(
            host=endpoint.host,
            port=endpoint.port,
            user=endpoint.login,
            http_scheme=endpoint.extra.get("scheme", "http"),
            auth=BasicAuthentication(endpoint.login, endpoint.password) if endpoint.password else None,
            catalog=catalog,
            timezone="UTC",
            source="shudl",
            request_timeout=60,
            session_properties={"query_max_run_time": f"{int(timeout_s)}s"},
        )
    )
