"""Patroni's callback, `on_role_change.py ACTION ROLE CLUSTER`: after PostgreSQL started, restarted or changed its role.

A primary gets the databases and roles of the platform. A standby drops the failover slots that it keeps from its time as a
primary: they are not copies of the new primary's, and PostgreSQL does not copy a slot over one of the same name.
"""

from __future__ import annotations

import sys
import time

import databases
import psycopg

TRIES = 60
PAUSE_S = 1.0

DROP_OWN_SLOTS = """
    SELECT count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots
    WHERE pg_is_in_recovery() AND slot_type = 'logical' AND failover AND NOT synced AND NOT temporary AND NOT active
"""


def settle(role: str) -> str:
    """Does what ``role`` asks for. Raises psycopg.Error or ValueError while PostgreSQL is not in that role yet."""
    with databases.connect() as connection:
        (standby,) = connection.execute("SELECT pg_is_in_recovery()").fetchone()
        if standby != (role != "primary"):
            raise ValueError(f"PostgreSQL is not yet a {role}")
        if not standby:
            databases.ensure(connection)
            return "databases and roles are there"
        (dropped,) = connection.execute(DROP_OWN_SLOTS).fetchone()
        return f"dropped {dropped} replication slots of its own"


def main(action: str, role: str) -> None:
    for left in reversed(range(TRIES)):
        try:
            print(f"{action} {role}: {settle(role)}", file=sys.stderr)
            return
        except (psycopg.Error, OSError, ValueError) as error:
            if not left:
                sys.exit(f"{action} {role}: gave up: {error}")
            time.sleep(PAUSE_S)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
