"""Run ``airflow <role> <options>`` once the metadata database is migrated and seeded.

The API server does both (Airflow's own lock keeps two of them apart); every other role waits until the
database is at this Airflow's revision. All of it costs one import of Airflow, which the database's own
start overlaps.

Where tasks run (the scheduler, or a worker of Celery's) what they import is imported first: their processes are forked
from it, and a task then starts without a second of imports.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil

WAIT_S = 180
HEALTH_PORT = 8974
"""Where a worker says whether it has its connection to the queue; a scheduler's own port for the same."""
UNREACHABLE = "unreachable"
TASKS_IMPORT = (
    "airflow.sdk.execution_time.task_runner",
    "boto3",
    "clickhouse_connect",
    "confluent_kafka.admin",
    "httpx",
    "include.cdc.reconcile",
    "include.platform.checks",
    "include.proof",
    "include.serving.publish",
    "psycopg",
    "pyiceberg.catalog.rest",
    "shudl.dbt",
    "shudl.operators",
    "shudl.spark",
    "trino",
)


def revision() -> str | None:
    """The database's revision; None before the first migration, :data:`UNREACHABLE` while nothing answers."""
    from airflow import settings
    from sqlalchemy import text
    from sqlalchemy.exc import OperationalError

    try:
        with settings.get_engine().connect() as connection:
            if connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
                return None
            return connection.scalar(text("SELECT version_num FROM alembic_version"))
    except OperationalError:
        return UNREACHABLE


def wait_until(arrived: Callable[[str | None], bool], look_at: str) -> str | None:
    """The revision once ``arrived`` says so. Ends the process after :data:`WAIT_S`."""
    deadline = time.monotonic() + WAIT_S
    while not arrived(now := revision()):
        if time.monotonic() > deadline:
            from include.platform.runtime import runtime

            look = runtime().how_to_look(look_at)
            sys.exit(f"Airflow's database is still {now or 'empty'} after {WAIT_S} s; see {look}")
        time.sleep(0.2)
    return now


def migrate_and_seed(head: str) -> None:
    from airflow.utils import db
    from airflow.utils.session import create_session
    from shudl.seeds import seed

    if wait_until(lambda now: now != UNREACHABLE, "airflow-db") != head:
        db.initdb()
    with create_session() as session:
        if made := seed(session):
            print("made", ", ".join(made), flush=True)


class WorkerHealth(BaseHTTPRequestHandler):
    """Whether this process is connected to the queue. Celery itself would be asked through the queue, by a second Airflow."""

    def do_GET(self) -> None:
        queue = int(os.environ["VALKEY_PORT"])
        connected = any(
            one.raddr and one.raddr.port == queue and one.status == psutil.CONN_ESTABLISHED
            for one in psutil.Process().net_connections("tcp")
        )
        self.send_response(200 if connected else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    from airflow.__main__ import main as airflow
    from airflow.utils.db import _REVISION_HEADS_MAP

    head = list(_REVISION_HEADS_MAP.values())[-1]
    if sys.argv[1] == "api-server":
        migrate_and_seed(head)
    else:
        wait_until(lambda now: now == head, "airflow-api-server")
    if sys.argv[1] == {"LocalExecutor": "scheduler", "CeleryExecutor": "celery"}[os.environ["AIRFLOW__CORE__EXECUTOR"]]:
        for module in TASKS_IMPORT:
            importlib.import_module(module)
    if sys.argv[1] == "celery":
        server = ThreadingHTTPServer(("", HEALTH_PORT), WorkerHealth)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    airflow()


if __name__ == "__main__":
    main()
