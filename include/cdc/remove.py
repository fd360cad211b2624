"""The end of a pipeline: what ``cdc_<source>`` made outside of the lake is taken away again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import httpx
from psycopg import sql

from include.cdc.check import connect
from include.cdc.connector import connector_state
from include.cdc.jobs import ALIVE
from include.cdc.pipelines import Pipeline, PipelineError
from include.platform.endpoints import Endpoints
from include.platform.flink import JobManager
from include.platform.kafka import admin_client

WAIT_S = 60


def remove(pipeline: Pipeline, endpoints: Endpoints) -> list[str]:
    """Cancel the jobs, delete connector, topics, subjects and checkpoints, drop slot and publication; return what was done.

    Tables of the source and of the lake stay. Nothing to remove is not an error. Raises :class:`PipelineError`.
    """
    return [
        *_jobs(pipeline, endpoints),
        *_connector(pipeline, endpoints),
        *_database(pipeline, endpoints),
        *_topics(pipeline, endpoints),
        *_subjects(pipeline, endpoints),
        *_checkpoints(pipeline, endpoints),
    ]


def _prefix(pipeline: Pipeline) -> str:
    return f"cdc.{pipeline.source}."


def _wait(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not done():
        if time.monotonic() > deadline:
            raise PipelineError([f"{what} after {WAIT_S} s; run the same command again"])
        time.sleep(0.3)


def _jobs(pipeline: Pipeline, endpoints: Endpoints) -> list[str]:
    manager = JobManager(endpoints["shudl_flink"].url)

    def alive() -> list[dict]:
        return [job for job in manager.jobs() if job["name"].startswith(_prefix(pipeline)) and job["state"] in ALIVE]

    jobs = alive()
    for job in jobs:
        manager.cancel(job["jid"])
    _wait(lambda: not alive(), f"Flink jobs of {pipeline.source} still run")
    return [f"cancelled job {job['name']}" for job in jobs]


def _connector(pipeline: Pipeline, endpoints: Endpoints) -> list[str]:
    """Its offsets go first: a connector that is made anew must read the tables from their beginning."""
    connect_endpoint = endpoints["shudl_connect"]
    if "secrets_dir" in connect_endpoint.extra:
        Path(connect_endpoint.extra["secrets_dir"], pipeline.source).unlink(missing_ok=True)
    if connector_state(pipeline, endpoints)[0] == "MISSING":
        return []
    with httpx.Client(base_url=f"{connect_endpoint.url}/connectors/{pipeline.connector}", timeout=30) as http:

        def accepted(send: Callable[[], httpx.Response]) -> bool:
            """Connect refuses for a moment while its workers rebalance or the connector still stops."""
            return send().is_success

        name = f"connector {pipeline.connector}"
        _wait(lambda: accepted(lambda: http.put("/stop")), f"{name} does not stop")
        _wait(lambda: accepted(lambda: http.delete("/offsets")), f"{name} keeps its offsets")
        _wait(lambda: accepted(lambda: http.delete("")), f"{name} is still there")
    return [f"deleted {name} and its offsets"]


def _database(pipeline: Pipeline, endpoints: Endpoints) -> list[str]:
    changes: list[str] = []
    with connect(pipeline, endpoints) as connection:

        def dropped() -> bool:
            """The WAL sender may outlive its connector for a moment."""
            row = connection.execute("SELECT active FROM pg_replication_slots WHERE slot_name = %s", (pipeline.slot,)).fetchone()
            if row is None or row[0]:
                return row is None
            connection.execute("SELECT pg_drop_replication_slot(%s)", (pipeline.slot,))
            changes.append(f"dropped slot {pipeline.slot}")
            return True

        _wait(dropped, f"slot {pipeline.slot} is still read")
        if connection.execute("SELECT 1 FROM pg_publication WHERE pubname = %s", (pipeline.publication,)).fetchone():
            connection.execute(sql.SQL("DROP PUBLICATION {}").format(sql.Identifier(pipeline.publication)))
            changes.append(f"dropped publication {pipeline.publication}")
    return changes


def _is_topic(pipeline: Pipeline, name: str) -> bool:
    return name.startswith(f"{pipeline.source}.") or name == f"__debezium-heartbeat.{pipeline.source}"


def _topics(pipeline: Pipeline, endpoints: Endpoints) -> list[str]:
    admin = admin_client(endpoints["shudl_kafka"])
    topics = sorted(name for name in admin.list_topics(timeout=20).topics if _is_topic(pipeline, name))
    for topic, deleted in admin.delete_topics(topics).items() if topics else ():
        try:
            deleted.result(30)
        except Exception as error:
            raise PipelineError([f"topic {topic}: {error}"]) from error
    groups = [group.group_id for group in admin.list_consumer_groups(request_timeout=20).result(30).valid]
    if mine := [group for group in groups if group.startswith(_prefix(pipeline))]:
        for group, deleted in admin.delete_consumer_groups(mine, request_timeout=20).items():
            try:
                deleted.result(30)
            except Exception as error:
                raise PipelineError([f"consumer group {group}: {error}"]) from error
    return [f"deleted topic {topic}" for topic in topics]


def _subjects(pipeline: Pipeline, endpoints: Endpoints) -> list[str]:
    with httpx.Client(base_url=f"{endpoints['shudl_registry'].url}/apis/ccompat/v7", timeout=20) as http:
        present = http.get("/subjects").raise_for_status().json()
        subjects = [name for name in present if _is_topic(pipeline, name.removesuffix("-key").removesuffix("-value"))]
        for subject in subjects:
            for how in ("false", "true"):  # the registry takes away for good only what was deleted before
                http.delete(f"/subjects/{quote(subject, safe='')}", params={"permanent": how}).raise_for_status()
    return [f"deleted {len(subjects)} subjects of the registry"] * bool(subjects)


def _checkpoints(pipeline: Pipeline, endpoints: Endpoints) -> list[str]:
    folders = sorted(Path(endpoints["shudl_flink"].extra["checkpoint_dir"]).glob(f"{_prefix(pipeline)}*"))
    for folder in folders:
        shutil.rmtree(folder)
    return [f"removed {len(folders)} folders of checkpoints"] * bool(folders)
