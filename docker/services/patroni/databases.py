"""Sees to the databases and roles of the platform, on the primary. Patroni runs it when it has made a cluster.

Every role has the password that its secret file holds, so a changed file counts from the next start. Only SCRAM verifiers
are sent: no statement, and so no log, ever has a password.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
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
    "fencer": ("NOREPLICATION", "POSTGRES_FENCER_PASSWORD_FILE"),
}
"""Role → its attribute, and the variable that names the file of its password."""

DATABASES = ("flights", "nessie", "registry", "keycloak")
"""Each is owned by the role of its name, and closed to the others."""

GRANTS = (
    *(
        f"SELECT 'GRANT pg_monitor TO {role}' WHERE NOT pg_has_role('{role}', 'pg_monitor', 'USAGE')"
        for role in ("exporter", "fencer")
    ),
    "SELECT 'GRANT EXECUTE ON FUNCTION pg_reload_conf() TO fencer' "
    "WHERE NOT has_function_privilege('fencer', 'pg_reload_conf()', 'EXECUTE')",
    "SELECT 'GRANT ALTER SYSTEM ON PARAMETER synchronized_standby_slots TO fencer' "
    "WHERE NOT has_parameter_privilege('fencer', 'synchronized_standby_slots', 'ALTER SYSTEM')",
)
"""Each answers with the statement that gives a right, where it is missing."""


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


def verifies(verifier: str | None, value: str) -> bool:
    """Whether ``verifier`` (``SCRAM-SHA-256$iterations:salt$stored key:server key``) is of the password ``value``."""
    match (verifier or "").replace(":", "$").split("$"):
        case ["SCRAM-SHA-256", iterations, salt, stored, _]:
            salted = hashlib.pbkdf2_hmac("sha256", value.encode(), base64.b64decode(salt), int(iterations))
            client_key = hmac.digest(salted, b"Client Key", "sha256")
            return hmac.compare_digest(hashlib.sha256(client_key).digest(), base64.b64decode(stored))
    return False


def ensure(connection: psycopg.Connection) -> None:
    """Makes what is missing, and renews passwords that have changed. A second call changes nothing."""
    verifiers = dict(connection.execute("SELECT rolname, rolpassword FROM pg_authid").fetchall())
    for role, (attribute, variable) in ROLES.items():
        if role not in verifiers and role in PATRONI:
            continue
        name, what = sql.Identifier(role), sql.SQL(attribute)
        if role not in verifiers:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN {}").format(name, what))
        if not verifies(verifiers.get(role), value := password(variable)):
            verifier = connection.pgconn.encrypt_password(value.encode(), role.encode(), b"scram-sha-256").decode()
            connection.execute(sql.SQL("ALTER ROLE {} LOGIN {} PASSWORD {}").format(name, what, verifier))
    for grant in (connection.execute(query).fetchone() for query in GRANTS):
        if grant:
            connection.execute(grant[0])

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
