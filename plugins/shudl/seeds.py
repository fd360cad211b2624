"""What Airflow's database must hold before the first DAG runs: connections and pools.

Each is made when absent and never changed afterwards: what a user edits stays.
"""

from __future__ import annotations

import json

from airflow.models.connection import Connection
from airflow.models.pool import Pool
from sqlalchemy import select
from sqlalchemy.orm import Session

from include.platform.endpoints import Endpoint, local_endpoints

POOLS = {
    "trino": (4, "Queries that run at once on Trino"),
    "clickhouse": (2, "Loads and queries that run at once on ClickHouse"),
    "flink": (1, "Submissions to Flink, one at a time"),
}
"""Pool → slots and what they limit. Engines that several DAGs share are guarded by a pool."""


def connection(endpoint: Endpoint) -> Connection:
    """The Airflow connection that holds everything an endpoint has."""
    return Connection(
        conn_id=endpoint.conn_id,
        conn_type=endpoint.conn_type,
        host=endpoint.host,
        port=endpoint.port,
        login=endpoint.login or None,
        password=endpoint.password or None,
        schema=endpoint.schema or None,
        extra=json.dumps(dict(endpoint.extra)) if endpoint.extra else None,
        description="Made by ShuDL; edit it to use a service of your own",
    )


def seed(session: Session) -> list[str]:
    """Make the connections and pools that are absent; their names."""
    known = set(session.scalars(select(Connection.conn_id)))
    connections = [connection(endpoint) for conn_id, endpoint in local_endpoints().items() if conn_id not in known]
    known = set(session.scalars(select(Pool.pool)))
    pools = [
        Pool(pool=name, slots=slots, description=description, include_deferred=False)
        for name, (slots, description) in POOLS.items()
        if name not in known
    ]
    session.add_all([*connections, *pools])
    session.commit()
    return [*(c.conn_id for c in connections), *(p.pool for p in pools)]
