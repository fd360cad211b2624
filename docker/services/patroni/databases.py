"""Sees to the databases and roles of the platform, on the primary. Patroni runs it when it has made a cluster.

On each call every role gets the password that its secret file holds, so that a changed file counts from the next start;
what exists is kept. Only SCRAM verifiers are sent: no statement, and so no log, ever has a password.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psycopg
from psycopg import sql

PATRONI = ("postgres", "replicator", "rewinder")
"""Roles that Patroni makes itself."""

ROLES = {
    "postgres": ("SUPERUSER", "POSTGRES_SUPERUSER_PASSWORD_FILE"),
    "replicator": ("REPLICATION", "POSTGRES_REPLICATOR_PASSWORD_FILE"),
    "rewinder": ("NOSUPERUSER", "POSTGRES_REWINDER_PASSWORD_FILE"),
    "flights": ("REPLICATION", "POSTGRES_FLIGHTS_PASSWORD_FILE"),
    "nessie": ("NOREPLICATION", "POSTGRES_NESSIE_PASSWORD_FILE"),
    "registry": ("NOREPLICATION", "POSTGRES_REGISTRY_PASSWORD_FILE"),
    "keycloak": ("NOREPLICATION", "POSTGRES_KEYCLOAK_PASSWORD_FILE"),
    "exporter": ("NOREPLICATION", "POSTGRES_EXPORTER_PASSWORD_FILE"),
}
"""Role → its attribute, and the variable that names the file of its password."""

DATABASES = ("flights", "nessie", "registry", "keycloak")
"""Each is owned by the role of its name, and closed to the others."""


def connect() -> psycopg.Connection:
    """The superuser's session on this member, by its socket: this process's user is let in without a password.

    It does not wait for a standby: without one Patroni may still be about to say so, and what is done here is done again
    by whichever member is the primary next.
    """
    return psycopg.connect(
        host=os.environ["RUN_DIR"], user="postgres", dbname="postgres", options="-c synchronous_commit=local", autocommit=True
    )


def password(variable: str) -> str:
    path = os.environ[variable]
    value = Path(path).read_text().strip()
    if not value:
        raise ValueError(f"{variable}={path} is empty")
    return value


def ensure(connection: psycopg.Connection) -> None:
    """Makes what is missing. A second call changes nothing but passwords that have changed."""
    roles = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles")}
    for role, (attribute, variable) in ROLES.items():
        if role not in roles and role in PATRONI:
            continue
        name, what = sql.Identifier(role), sql.SQL(attribute)
        if role not in roles:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN {}").format(name, what))
        verifier = connection.pgconn.encrypt_password(password(variable).encode(), role.encode(), b"scram-sha-256").decode()
        connection.execute(sql.SQL("ALTER ROLE {} LOGIN {} PASSWORD {}").format(name, what, verifier))
    connection.execute("GRANT pg_monitor TO exporter")

    databases = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
    for database in DATABASES:
        name = sql.Identifier(database)
        if database not in databases:
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, name))
            connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))


if __name__ == "__main__":
    try:
        with connect() as session:
            ensure(session)
    except (psycopg.Error, OSError, ValueError) as error:
        sys.exit(f"databases: {error}")
