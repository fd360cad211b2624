"""The lake's tables at one commit, and their copies in ClickHouse put in the place of the old ones.

:func:`pin` says where each table is at the newest commit of branch ``main``. dbt copies the tables from there into
the database :data:`NEXT`, and writes the commit into each copy's comment. :func:`publish` exchanges the copies with
the tables of the database :data:`SERVING`. A comment moves with its table, so a table never goes with the hash of
another; the view ``serving._published`` shows them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx

from include.cdc.pipelines import Pipeline
from include.lake.catalog import BRANCH, PUBLISHED, Lake
from include.lake.refs import Refs
from include.platform.endpoints import Endpoints
from include.serving.clickhouse import connect

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

SERVING = "serving"
NEXT = "serving_next"
RECORDS = "_published"
MODELS = "dbt_project/models/serving"
RECORDED = "startsWith(comment, '{')"
"""What tells the tables that were copied from the lake, in ``system.tables``."""


class PublishError(RuntimeError):
    """The tables cannot be pinned or published; the text names them and the way out."""


@dataclass(frozen=True)
class At:
    """Where an Iceberg table is at some commit: the address of its folder, and its metadata file in there."""

    url: str
    metadata: str


@dataclass(frozen=True)
class Pinned:
    """A Nessie commit, and where the tables (``namespace.table``) are at it."""

    hash: str
    tables: Mapping[str, At]

    def for_dbt(self, run_id: str) -> str:
        """The variable SHUDL_PINNED, from which the project's macros read."""
        return json.dumps({"run_id": run_id, **asdict(self)})


@dataclass(frozen=True)
class Published:
    """A table of ClickHouse, and the commit it was copied from."""

    table: str
    nessie_hash: str
    rows: int
    copied_at: datetime
    run_id: str


def check_served(pipelines: Iterable[Pipeline], lake_tables: Iterable[str]) -> None:
    """Raises :class:`PublishError` unless each table with ``serve: true`` is among ``lake_tables``, which models read."""
    read = set(lake_tables)
    problems = [
        f"{pipeline.source}: {name} has serve: true, but no model in {MODELS} reads {pipeline.iceberg_table(name)}"
        for pipeline in pipelines
        for name, table in pipeline.tables.items()
        if table.serve and pipeline.iceberg_table(name) not in read
    ]
    if problems:
        raise PublishError("\n".join(problems))


def pin(lake: Lake, tables: Iterable[str], ref: str = BRANCH) -> Pinned:
    """Where each of ``tables`` is at the newest commit of ``ref``, from one answer of Nessie.

    Raises :class:`PublishError` when a table is not there, httpx.HTTPError when Nessie refuses.
    """
    tables = sorted(set(tables))
    params = [("key", table) for table in tables]
    answer = httpx.get(f"{lake.nessie_url}/api/v2/trees/{ref}/contents", params=params, timeout=30).raise_for_status().json()
    found = {".".join(item["key"]["elements"]): item["content"] for item in answer["contents"]}
    commit = answer["effectiveReference"]["hash"]
    if missing := [table for table in tables if "metadataLocation" not in found.get(table, {})]:
        names = ", ".join(missing)
        raise PublishError(f"the lake has no table {names} at {ref}@{commit[:12]}; build the marts, or run its source's cdc DAG")
    return Pinned(commit, {table: _at(lake, found[table]["metadataLocation"]) for table in tables})


def _at(lake: Lake, metadata_location: str) -> At:
    folder, _, file = metadata_location.rpartition("/metadata/")
    return At(lake.http_url(folder), f"metadata/{file}")


def published(client: Client, database: str = SERVING) -> dict[str, Published]:
    """The tables of ``database`` that were copied from the lake, by name."""
    rows = client.query(
        f"SELECT name, comment, coalesce(total_rows, 0) FROM system.tables WHERE database = '{database}' AND {RECORDED}"
    ).result_rows
    return {name: _published(name, comment, count) for name, comment, count in rows}


def _published(table: str, comment: str, rows: int) -> Published:
    origin: dict[str, Any] = json.loads(comment)
    copied_at = datetime.fromisoformat(origin["copied_at"]).astimezone(UTC)
    return Published(table, origin["nessie_hash"], rows, copied_at, origin["run_id"])


def publish(
    endpoints: Endpoints, lake: Lake, pinned_hash: str, tables: Iterable[str], branch: bool = True
) -> dict[str, Published]:
    """Put the copies in :data:`NEXT` in the place of :data:`SERVING`'s tables, all in one statement; what is served then.

    The branch ``published`` moves to ``pinned_hash``, unless ``branch`` is false since it is kept for other tables, and the
    old tables go. Killed anywhere and called again it ends
    in the same state; called once more it changes nothing. Raises :class:`PublishError`, before anything is
    changed, unless every one of ``tables`` was copied from ``pinned_hash``.
    """
    tables = sorted(tables)
    with connect(endpoints) as client:
        client.command(f"CREATE DATABASE IF NOT EXISTS {SERVING} ENGINE = Atomic")
        live, copies = published(client), published(client, NEXT)
        present = {name for (name,) in client.query(f"SELECT name FROM system.tables WHERE database = '{SERVING}'").result_rows}
        newer = [t for t in tables if t in copies and (t not in live or copies[t].copied_at > live[t].copied_at)]
        after = {**live, **{t: copies[t] for t in newer}}
        if wrong := [t for t in tables if t not in after or after[t].nessie_hash != pinned_hash]:
            raise PublishError(f"{', '.join(wrong)}: not copied from {pinned_hash[:12]}; run the whole DAG again")
        _swap(client, newer, present)
        if branch:
            refs = Refs(lake.nessie_url)
            refs.ensure(PUBLISHED, BRANCH)
            refs.assign(PUBLISHED, pinned_hash)
        for table in tables:
            client.command(f"DROP TABLE IF EXISTS {NEXT}.`{table}` SYNC")
        _ensure_records(client)
        return {table: served for table, served in published(client).items() if table in tables}


def report(served: Mapping[str, Published], pinned_hash: str, started: datetime) -> dict[str, Any]:
    """The evidence of a run that ``started`` then: what is served, and the seconds that the marts and the copies took."""
    copying, now = min(table.copied_at for table in served.values()), datetime.now(UTC)
    seconds = {"marts": copying - started, "serving": now - copying, "total": now - started}
    return {
        "nessie_hash": pinned_hash,
        "rows": {table: served[table].rows for table in sorted(served)},
        "seconds": {what: round(duration.total_seconds(), 1) for what, duration in seconds.items()},
    }


def _swap(client: Client, tables: list[str], present: set[str]) -> None:
    if first := [table for table in tables if table not in present]:
        client.command("RENAME TABLE " + ", ".join(f"{NEXT}.`{table}` TO {SERVING}.`{table}`" for table in first))
    if again := [table for table in tables if table in present]:
        client.command("EXCHANGE TABLES " + ", ".join(f"{NEXT}.`{table}` AND {SERVING}.`{table}`" for table in again))


def _ensure_records(client: Client) -> None:
    client.command(
        f"CREATE OR REPLACE VIEW {SERVING}.{RECORDS} AS SELECT name AS table_name, "
        "JSONExtractString(comment, 'nessie_hash') AS nessie_hash, total_rows AS rows, "
        "parseDateTime64BestEffort(JSONExtractString(comment, 'copied_at'), 6, 'UTC') AS copied_at, "
        "JSONExtractString(comment, 'run_id') AS run_id "
        f"FROM system.tables WHERE database = '{SERVING}' AND {RECORDED}"
    )
