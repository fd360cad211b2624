"""Run ``airflow <role> <options>`` once the metadata database is migrated and seeded.

The API server does both (Airflow's own lock keeps two of them apart); every other role waits until the
database is at this Airflow's revision. All of it costs one import of Airflow.
"""

from __future__ import annotations

import sys
import time

WAIT_S = 180


def revision() -> str | None:
    """The database's revision; None before the first migration."""
    from airflow import settings
    from sqlalchemy import text

    with settings.get_engine().connect() as connection:
        if connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
            return None
        return connection.scalar(text("SELECT version_num FROM alembic_version"))


def migrate_and_seed(head: str) -> None:
    from airflow.utils import db
    from airflow.utils.session import create_session

    if revision() != head:
        db.initdb()
    from shudl.seeds import seed

    with create_session() as session:
        if made := seed(session):
            print("made", ", ".join(made), flush=True)


def wait_for(head: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while (now := revision()) != head:
        if time.monotonic() > deadline:
            sys.exit(f"metadata database: at revision {now}, not {head}, after {WAIT_S} s; see ./shudl logs airflow-api-server")
        time.sleep(0.3)


def main() -> None:
    from airflow.__main__ import main as airflow
    from airflow.utils.db import _REVISION_HEADS_MAP

    head = list(_REVISION_HEADS_MAP.values())[-1]
    if sys.argv[1] == "api-server":
        migrate_and_seed(head)
    else:
        wait_for(head)
    airflow()


if __name__ == "__main__":
    main()
