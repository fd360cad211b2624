"""Airflow's connections as the endpoints that ``include/`` works with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from include.platform.catalog import CONN_IDS, EXTERNAL
from include.platform.connections import no_connection
from include.platform.endpoints import Endpoint, Endpoints, own_endpoints, redirected


class MissingConnection(KeyError):
    def __str__(self) -> str:
        return no_connection(self.args[0])


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
    """Endpoints read from Airflow when asked for, each once. Iterates over the platform's; finds any connection.

    A service's own connection is the one that stands for it, where the service is external.
    """

    def __init__(self) -> None:
        self._read: dict[str, Endpoint] = {}
        self._instead = redirected()

    def __getitem__(self, conn_id: str) -> Endpoint:
        conn_id = self._instead.get(conn_id, conn_id)
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
    conn_id = EXTERNAL.get(service, CONN_IDS[service])
    try:
        return from_connection(await Connection.async_get(conn_id))
    except AirflowNotFoundException:
        raise MissingConnection(conn_id) from None


def is_external(service: str, endpoint: Endpoint) -> bool:
    """Whether a service is not ours: ``SHUDL_EXTERNAL`` says so, or its connection was edited and leads elsewhere."""
    return service in EXTERNAL or endpoint.address != own_endpoints()[CONN_IDS[service]].address
