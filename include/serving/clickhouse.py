"""ClickHouse: connections, and the lake as one of its databases."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from include.lake.catalog import BUCKET, WAREHOUSE, Lake
from include.platform.endpoints import Endpoints

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

LAKE_DATABASE = "lake"


def connect(endpoints: Endpoints, timeout_s: float = 300) -> closing[Client]:
    """A context manager of one client of the ClickHouse server."""
    import clickhouse_connect

    endpoint = endpoints["shudl_clickhouse"]
    return closing(
        clickhouse_connect.get_client(
            host=endpoint.host,
            port=endpoint.port,
            username=endpoint.login,
            password=endpoint.password,
            interface=endpoint.extra.get("scheme", "http"),
            send_receive_timeout=timeout_s,
            autogenerate_session_id=False,
        )
    )


def ensure_lake(client: Client, lake: Lake) -> None:
    """Make the database ``lake``, in which every Iceberg table of branch main is ``lake.`namespace.table```.

    The S3 keys are in the engine's configuration.
    """
    if client.command(f"EXISTS DATABASE {LAKE_DATABASE}") == 1:
        return
    client.command(
        f"CREATE DATABASE IF NOT EXISTS {LAKE_DATABASE} "
        f"ENGINE = DataLakeCatalog('{lake.catalog_uri}') "
        f"SETTINGS catalog_type = 'rest', warehouse = '{WAREHOUSE}', storage_endpoint = '{lake.s3_endpoint}/{BUCKET}', "
        "vended_credentials = false",
        settings={"allow_database_iceberg": 1},
    )
