"""Airflow's connections, read from its database by programs that are no tasks of its own: the command line."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from include.platform.endpoints import Endpoint
from include.platform.settings import DOCKER_CA, Settings, settings

COLUMNS = "conn_type, host, port, login, password, schema, extra, is_encrypted, is_extra_encrypted"


class ConnectionUnreadable(RuntimeError):
    """A connection is missing, or Airflow's database does not answer; the text says what to do."""


def no_connection(conn_id: str) -> str:
    return f"Airflow has no connection {conn_id}; make it in the UI under Admin, Connections"


def airflow_database(s: Settings = settings) -> dict[str, Any]:
    """psycopg's parameters of Airflow's own database."""
    host, port = s.address("airflow_db")
    tls = {"sslmode": "verify-full", "sslrootcert": str(DOCKER_CA)} if s.docker else {}
    password = s.secret("airflow_db_airflow")
    return {"host": host, "port": port, "user": "airflow", "password": password, "dbname": "airflow", "connect_timeout": 3, **tls}


def read(conn_id: str, s: Settings = settings) -> Endpoint:
    """The endpoint that Airflow's connection ``conn_id`` describes. Raises :class:`ConnectionUnreadable`."""
    import psycopg
    from cryptography.fernet import Fernet, InvalidToken

    try:
        with psycopg.connect(**airflow_database(s)) as connection:
            row = connection.execute(f"SELECT {COLUMNS} FROM connection WHERE conn_id = %s", (conn_id,)).fetchone()
    except psycopg.Error as error:
        reason = str(error).strip().splitlines()[0]
        raise ConnectionUnreadable(f"connection {conn_id} cannot be read: Airflow's database: {reason}") from None
    if row is None:
        raise ConnectionUnreadable(no_connection(conn_id))
    conn_type, host, port, login, password, schema, extra, sealed, extra_sealed = row
    key = Fernet(base64.urlsafe_b64encode(hashlib.sha256(s.secret("airflow_fernet").encode()).digest()))

    def opened(text: str | None, is_sealed: bool) -> str:
        return key.decrypt(text.encode()).decode() if text and is_sealed else text or ""

    try:
        more = opened(extra, extra_sealed)
        return Endpoint(
            conn_id=conn_id,
            conn_type=conn_type,
            host=host or "",
            port=port or 0,
            login=login or "",
            password=opened(password, sealed),
            schema=schema or "",
            extra=json.loads(more) if more else {},
        )
    except InvalidToken:
        raise ConnectionUnreadable(f"connection {conn_id} was stored with another key of Airflow's; enter it anew") from None
