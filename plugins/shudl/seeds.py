"""What Airflow's database must hold before the first DAG runs: connections and pools.

Each is made when absent. A connection that is still as it was made follows a changed port, password or certificate; one
that a user has edited stays as it is, and so does every pool.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import asdict

from airflow.configuration import conf
from airflow.models.connection import Connection
from airflow.models.pool import Pool
from sqlalchemy import select
from sqlalchemy.orm import Session

from include.platform.endpoints import Endpoint, own_endpoints
from shudl.endpoints import from_connection

POOLS = {
    "trino": (4, "Queries that run at once on Trino"),
    "clickhouse": (2, "Loads and queries that run at once on ClickHouse"),
    "drill": (1, "Faults on purpose, one at a time"),
    "flink": (1, "Submissions to Flink, one at a time"),
    "landing": (2, "Folders of the landing bucket that are loaded at once"),
}
"""Pool → slots and what they limit. Engines that several DAGs share are guarded by a pool."""


MADE = "Made by ShuDL; edit it to use a service of your own. As made: "
"""Description of a connection; the fingerprint of what was made follows."""


def fingerprint(endpoint: Endpoint) -> str:
    """Tells whether an endpoint is as it was. Its password cannot be guessed from it: the key is Airflow's own."""
    fields = json.dumps(asdict(endpoint), sort_keys=True)
    return hmac.new(conf.get("core", "fernet_key").encode(), fields.encode(), hashlib.sha256).hexdigest()[:16]


def connection(endpoint: Endpoint) -> Connection:
    """The Airflow connection that holds everything an endpoint has."""
    made = Connection(conn_id=endpoint.conn_id)
    _fill(made, endpoint)
    return made


def _fill(made: Connection, endpoint: Endpoint) -> None:
    made.conn_type, made.host, made.port = endpoint.conn_type, endpoint.host, endpoint.port
    made.login, made.schema = endpoint.login or None, endpoint.schema or None
    made.set_password(endpoint.password or None)
    made.set_extra(json.dumps(dict(endpoint.extra)) if endpoint.extra else "")
    made.description = MADE + fingerprint(endpoint)


def _unedited(present: Connection) -> bool:
    return present.description == MADE + fingerprint(from_connection(present))


def seed(session: Session) -> list[str]:
    """Make the connections and pools that are absent, bring the unedited ones up to date; the names of what changed."""
    changed = []
    present = {connection.conn_id: connection for connection in session.scalars(select(Connection))}
    for conn_id, endpoint in own_endpoints().items():
        if conn_id not in present:
            session.add(connection(endpoint))
        elif _unedited(present[conn_id]) and from_connection(present[conn_id]) != endpoint:
            _fill(present[conn_id], endpoint)
        else:
            continue
        changed.append(conn_id)
    known = set(session.scalars(select(Pool.pool)))
    for name, (slots, description) in POOLS.items():
        if name not in known:
            session.add(Pool(pool=name, slots=slots, description=description, include_deferred=False))
            changed.append(name)
    session.commit()
    return changed
