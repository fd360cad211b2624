"""When has everything that the source had committed at some moment arrived in the lake?

Three facts in a row, each from the system that owns it:

1. Kafka holds every change up to an LSN: Kafka Connect has committed a source offset at or past a marker
   that was written after that LSN.
2. Each of the table's jobs in Flink has read its topic up to its end offset at that time: its consumer group
   committed it, which it does once a checkpoint that contains those records is complete.
3. Iceberg holds them: a later checkpoint of the same job is complete. The sink commits a checkpoint's files when
   it hears of its completion, and takes part in the next checkpoint only after that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import psycopg

from include.cdc.connector import acknowledged_lsn
from include.cdc.jobs import ALIVE, job_names
from include.cdc.pipelines import HEARTBEAT_TABLE, Pipeline
from include.cdc.topics import end_offsets, group_offsets
from include.platform.endpoints import Endpoints
from include.platform.flink import FlinkError, JobManager

Progress = Callable[[str], Any]


class NotCovered(RuntimeError):
    """The lake did not catch up in time; the text names the hop that is behind and by how much."""


def mark(connection: psycopg.Connection) -> int:
    """Write the marker; return an LSN that is past everything committed before the call. Autocommit mode."""
    (lsn,) = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
    connection.execute(f"UPDATE {HEARTBEAT_TABLE} SET beat = clock_timestamp() WHERE id = 1")
    return int(lsn)


def wait_until_covered(
    pipeline: Pipeline,
    endpoints: Endpoints,
    tables: Sequence[str] | None = None,
    timeout_s: float = 300,
    progress: Progress = lambda text: None,
) -> dict[str, Any]:
    """Return once the lake holds every change that was committed before the call, for ``tables`` (default: all).

    Returns ``{lsn, offsets, seconds}``. Raises :class:`NotCovered` after ``timeout_s``.
    """
    started = time.monotonic()
    deadline = started + timeout_s
    tables = list(tables or pipeline.tables)
    with psycopg.connect(endpoints[pipeline.connection].conninfo, autocommit=True) as connection:
        lsn = mark(connection)
    seen = -1
    while (acknowledged := acknowledged_lsn(pipeline, endpoints)) is None or acknowledged < lsn:
        if acknowledged != seen:
            progress(
                "Kafka: the first snapshot is not complete"
                if acknowledged is None
                else f"Kafka: {lsn - acknowledged:,} bytes of WAL behind"
            )
            seen = acknowledged
        if time.monotonic() > deadline:
            raise NotCovered(
                f"connector {pipeline.connector} acknowledged LSN {acknowledged} but {lsn} is needed, after {timeout_s:.0f} s"
            )
        time.sleep(0.3)
    offsets = end_offsets([pipeline.topic(table) for table in tables], endpoints)
    manager = JobManager(endpoints["shudl_flink"].url)
    topics = {name: pipeline.topic(table) for table in tables for name in job_names(pipeline, table)}
    waiting: dict[str, tuple[str, int] | None] = {name: None for name, topic in topics.items() if offsets[topic]}
    while waiting:
        trouble = ""
        try:
            _drop_committed(waiting, topics, offsets, manager, endpoints)
        except (FlinkError, httpx.TransportError) as error:
            # The job manager restarts, or a job went while it was asked about.
            trouble = f" ({(str(error) or type(error).__name__).splitlines()[0][:200]})"
        if not waiting:
            break
        progress(f"Flink: {', '.join(sorted(waiting))} not yet committed{trouble}")
        if time.monotonic() > deadline:
            raise NotCovered(f"after {timeout_s:.0f} s the lake lacks changes of: {', '.join(sorted(waiting))}{trouble}")
        time.sleep(0.4)
    return {"lsn": lsn, "offsets": offsets, "seconds": round(time.monotonic() - started, 2)}


def _drop_committed(
    waiting: dict[str, tuple[str, int] | None],
    topics: dict[str, str],
    offsets: dict[str, int],
    manager: JobManager,
    endpoints: Endpoints,
) -> None:
    """Take out of ``waiting`` the jobs that have committed; of the others note the checkpoint after which they will have."""
    jobs = {job["name"]: job["jid"] for job in manager.jobs() if job["state"] in ALIVE}
    for name in list(waiting):
        jid, topic = jobs.get(name), topics[name]
        completed = (manager.checkpoints(jid)["latest"]["completed"] or {}).get("id", 0) if jid else 0
        since = waiting[name]
        if since and since[0] == jid:
            if completed > since[1]:
                del waiting[name]
        elif jid and group_offsets(name, topic, endpoints) >= offsets[topic]:
            waiting[name] = (jid, completed)
