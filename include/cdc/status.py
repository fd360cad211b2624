"""How the pipelines fare: what `./shudl status` and the demo's live table show."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg

from include.cdc.connector import acknowledged_lsn, connector_state
from include.cdc.pipelines import COMMITTED_AT, Pipeline, load_all
from include.cdc.source import quoted
from include.cdc.topics import end_offsets, group_offsets, last_timestamp
from include.lake.catalog import BRANCH
from include.platform.endpoints import Endpoints
from include.platform.evidence import latest_evidence
from include.platform.flink import JobManager


def pipelines(endpoints: Endpoints) -> list[dict[str, Any]]:
    """:func:`pipeline_status` of each pipeline file."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda p: pipeline_status(p, endpoints), load_all()))


def _or_none(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception:
        return None


def pipeline_status(pipeline: Pipeline, endpoints: Endpoints) -> dict[str, Any]:
    """``source, connector, reason, tables, proof``; a store that does not answer leaves None.

    ``tables`` are those in the lake: ``table`` (the source's), ``mode`` (mirror or changelog; a table kept as both is
    there twice), ``job`` (the Flink job's state), ``behind`` (changes in Kafka that it lacks), ``iceberg_table`` and
    ``committed_at_ms`` (its last commit, milliseconds since 1970).
    """
    jobs = _or_none(lambda: {j["name"]: j["state"] for j in sorted(_jobs(endpoints), key=lambda j: j["start-time"])})
    ends = _or_none(lambda: end_offsets([pipeline.topic(table) for table in pipeline.tables], endpoints))
    state = _or_none(lambda: connector_state(pipeline, endpoints)) or (None, "")

    def table(name: str, mode: str, job: str, iceberg_table: str) -> dict[str, Any]:
        topic = pipeline.topic(name)
        read = _or_none(lambda: group_offsets(job, topic, endpoints)) if ends else None
        return {
            "table": name,
            "mode": mode,
            "job": jobs.get(job, "MISSING") if jobs is not None else None,
            "behind": ends[topic] - read if ends and read is not None else None,
            "iceberg_table": iceberg_table,
            "committed_at_ms": _or_none(lambda: _last_commit_ms(iceberg_table, endpoints)),
        }

    tables: list[dict[str, Any]] = []
    for name, kept in pipeline.tables.items():
        if kept.mirrored:
            tables.append(table(name, "mirror", pipeline.job(name), pipeline.iceberg_table(name)))
        if kept.logged:
            tables.append(table(name, "changelog", pipeline.changelog_job(name), pipeline.changelog_table(name)))

    evidence = latest_evidence(f"prove_{pipeline.source}") or {}
    return {
        "source": pipeline.source,
        "connector": state[0],
        "reason": state[1],
        "tables": tables,
        "proof": {key: evidence[key] for key in ("written_at", "unresolved") if key in evidence} or None,
    }


def _jobs(endpoints: Endpoints) -> list[dict[str, Any]]:
    return JobManager(endpoints["shudl_flink"].url, 3).jobs()


def _last_commit_ms(iceberg_table: str, endpoints: Endpoints) -> int | None:
    namespace, name = iceberg_table.split(".")
    path = f"/iceberg/v1/{BRANCH}/namespaces/{namespace}/tables/{name}"
    metadata = httpx.get(f"{endpoints['shudl_nessie'].url}{path}", timeout=3).raise_for_status().json()["metadata"]
    return max((snapshot["timestamp-ms"] for snapshot in metadata.get("snapshots", [])), default=None)


@dataclass(frozen=True)
class HopReading:
    """One store on a table's way: its rows (Kafka: changes) and how far it is behind the store before it began to wait."""

    name: str
    rows: int | None
    lag_s: float | None


class HopMeter:
    """Follows one table from PostgreSQL to ClickHouse. Call :meth:`read` again and again; it keeps a short history."""

    def __init__(self, pipeline: Pipeline, table: str, endpoints: Endpoints) -> None:
        self.pipeline, self.table, self.endpoints = pipeline, table, endpoints
        self._lsns: deque[tuple[float, int]] = deque(maxlen=600)
        self._pool = ThreadPoolExecutor(4)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def read(self) -> list[HopReading]:
        """The four hops now. A store that does not answer, or lacks the table, has None."""
        futures = [self._pool.submit(_or_none, call) for call in (self._postgres, self._kafka, self._iceberg, self._clickhouse)]
        source, kafka, iceberg, clickhouse = (future.result() for future in futures)
        newest_s = kafka[1] if kafka else None

        def behind(store: tuple[int, float | None] | None) -> float | None:
            if not store or store[1] is None or newest_s is None:
                return None
            return max(0.0, newest_s - store[1])

        return [
            HopReading("PostgreSQL", source, 0.0 if source is not None else None),
            HopReading("Kafka", kafka[0] if kafka else None, self._kafka_lag(kafka[2]) if kafka else None),
            HopReading("Iceberg", iceberg[0] if iceberg else None, behind(iceberg)),
            HopReading("ClickHouse", clickhouse[0] if clickhouse else None, behind(clickhouse)),
        ]

    def _postgres(self) -> int:
        with psycopg.connect(self.endpoints[self.pipeline.connection].conninfo) as connection:
            rows, lsn = connection.execute(
                f"SELECT (SELECT count(*) FROM {quoted(self.table)}), (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint"
            ).fetchone()
        self._lsns.append((time.monotonic(), lsn))
        return rows

    def _kafka(self) -> tuple[int, float | None, int | None]:
        topic = self.pipeline.topic(self.table)
        return (
            end_offsets([topic], self.endpoints)[topic],
            last_timestamp(topic, self.endpoints),
            acknowledged_lsn(self.pipeline, self.endpoints),
        )

    def _kafka_lag(self, acknowledged: int | None) -> float | None:
        if acknowledged is None:
            return None
        later = [at for at, lsn in self._lsns if lsn > acknowledged]
        return time.monotonic() - later[0] if later else 0.0

    def _iceberg(self) -> tuple[int, float | None]:
        from include.platform.trino import connect

        with connect(self.endpoints, "lake", timeout_s=30) as connection:
            cursor = connection.cursor()
            cursor.execute(f"SELECT count(*), to_unixtime(max({COMMITTED_AT})) FROM {self.pipeline.iceberg_table(self.table)}")
            rows, newest = cursor.fetchone()
        return rows, newest

    def _clickhouse(self) -> tuple[int, float | None]:
        from include.serving.clickhouse import connect

        name = self.pipeline.iceberg_name(self.table)
        with connect(self.endpoints, timeout_s=30) as client:
            rows, newest = client.query(
                f"SELECT count(), toUnixTimestamp64Milli(max({COMMITTED_AT})) FROM serving.`{name}`"
            ).result_rows[0]
        return rows, newest / 1000
