"""Airflow's connections as the endpoints that ``include/`` works with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from include.platform.catalog import CONN_IDS
from include.platform.endpoints import Endpoint, Endpoints, local_endpoints


class MissingConnection(KeyError):
    def __str__(self) -> str:
        return f"Airflow has no connection {self.args[0]}; make it in the UI under Admin, Connections"


def from_connection(connection: Any) -> Endpoint:
    """The endpoint that an Airflow connection describes."""
    return Endpoint(
        conn_id=connection.conn_id,
        conn_type=connection.conn_type,
        host=connection.host or "",
        port=connection.port or 0,
        login=connection.login or "",
        password=connection.password or "",
        schema=connection.schema or "",
        extra=json.loads(connection.extra) if connection.extra else {},
    )


class ConnectionEndpoints(Mapping[str, Endpoint]):
    """Endpoints read from Airflow when asked for, each once. Iterates over the platform's; finds any connection."""

    def __init__(self) -> None:
        self._read: dict[str, Endpoint] = {}

    def __getitem__(self, conn_id: str) -> Endpoint:
        if conn_id not in self._read:
            try:
                self._read[conn_id] = from_connection(Connection.get(conn_id))
            except AirflowNotFoundException:
                raise MissingConnection(conn_id) from None
        return self._read[conn_id]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(CONN_IDS.values()))

    def __len__(self) -> int:
        return len(set(CONN_IDS.values()))


def endpoints() -> Endpoints:
    """The endpoints for use inside a task."""
    return ConnectionEndpoints()


async def service_endpoint(service: str) -> Endpoint:
    """The endpoint of one service, for use inside a trigger."""
    conn_id = CONN_IDS[service]
    try:
        return from_connection(await Connection.async_get(conn_id))
    except AirflowNotFoundException:
        raise MissingConnection(conn_id) from None


def is_external(endpoint: Endpoint) -> bool:
    """Whether an endpoint is not the one that this checkout runs: such a service is validated, never started."""
    return endpoint.address != local_endpoints()[endpoint.conn_id].address
