"""The marts, in the lake and in ClickHouse, against what DuckDB makes of the package's CSV files; and their publication."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest

from include.demo.flights import position
from include.lake.catalog import BRANCH, PUBLISHED, Lake
from include.lake.refs import Refs
from include.platform import trino
from include.platform.evidence import latest_evidence
from include.platform.settings import settings
from include.serving import clickhouse, dbt
from include.serving import publish as serving
from include.serving.publish import NEXT, SERVING, PublishError
from tests.expected_flights import open_csv
from tests.expected_marts import KEYS, expected_marts
from tests.live import Platform

Rows = dict[tuple[Any, ...], dict[str, Any]]


@pytest.fixture(scope="module")
def at_rest(published: Platform) -> Platform:
    """The replay stands still in the middle of its days, the lake has all of it, and it is published."""
    published.cover()
    published.run_dag("publish_flights", timeout_s=600)
    return published


@pytest.fixture(scope="module")
def expected(at_rest: Platform) -> dict[str, list[dict[str, Any]]]:
    now = position(at_rest.source)
    assert not now.finished, "the replay is over: no flight is pending"
    with closing(open_csv()) as con:
        return expected_marts(con, now.from_day, now.event_number)


def lake_rows(platform: Platform, query: str, catalog: str = "lake") -> list[dict[str, Any]]:
    with trino.connect(platform.endpoints, catalog) as connection:
        cursor = connection.cursor()
        cursor.execute(query)
        columns = [column.name for column in cursor.description]
        return [dict(zip(columns, map(naive, row), strict=True)) for row in cursor.fetchall()]


def served_rows(platform: Platform, query: str) -> list[dict[str, Any]]:
    with clickhouse.connect(platform.endpoints) as client:
        return [{name: naive(value) for name, value in row.items()} for row in client.query(query).named_results()]


def naive(value: Any) -> Any:
    """Instants without a zone, in UTC."""
    return value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) and value.tzinfo else value


def by_key(mart: str, rows: list[dict[str, Any]]) -> Rows:
    found = {tuple(row[column] for column in KEYS[mart]): row for row in rows}
    assert len(found) == len(rows), f"{mart}: a key occurs twice"
    return found


@pytest.mark.parametrize("store", ["lake", "clickhouse"])
@pytest.mark.parametrize("mart", KEYS)
def test_every_row_of_a_mart(at_rest: Platform, expected: dict[str, list[dict[str, Any]]], mart: str, store: str) -> None:
    query = f"SELECT * FROM {SERVING if store == 'clickhouse' else 'marts'}.{mart}"
    found = by_key(mart, (served_rows if store == "clickhouse" else lake_rows)(at_rest, query))
    wanted = by_key(mart, expected[mart])
    assert found.keys() == wanted.keys()
    for key, row in wanted.items():
        assert list(found[key]) == list(row)
        for column, value in row.items():
            value = pytest.approx(value, rel=1e-12) if isinstance(value, float) else value
            assert found[key][column] == value, f"{mart} {key}: {column}"


def test_the_marts_speak_of_every_status(expected: dict[str, list[dict[str, Any]]]) -> None:
    """The comparison above would prove little if a status did not occur."""
    for figure in ("pending", "arrived", "diverted", "cancelled", "on_time"):
        assert sum(row[figure] for row in expected["otp_by_carrier"]) > 0, figure


def test_what_is_served_is_the_lake_at_the_recorded_commit(at_rest: Platform) -> None:
    evidence = latest_evidence("publish_flights")
    assert evidence is not None
    served = served_rows(at_rest, f"SELECT * FROM {SERVING}.{serving.RECORDS}")
    records = {row["table_name"]: row for row in served if row["table_name"] in evidence["rows"]}  # other DAGs publish, too
    assert {name: row["rows"] for name, row in records.items()} == evidence["rows"]
    assert {row["nessie_hash"] for row in records.values()} == {evidence["nessie_hash"]}
    assert {row["run_id"] for row in records.values()} == {evidence["run_id"]}
    assert Refs(at_rest.endpoints["shudl_nessie"].url).hash(PUBLISHED) == evidence["nessie_hash"]

    query = "SELECT count(*) AS n, sum(id) AS ids, sum(arr_delay) AS late, sum(_lsn) AS lsn, max(_committed_at) AS at FROM"
    assert served_rows(at_rest, f"{query} {SERVING}.flights") == lake_rows(at_rest, f"{query} cdc_flights.flights", PUBLISHED)
    assert served_rows(at_rest, f"SELECT count() AS n FROM system.tables WHERE database = '{NEXT}'") == [{"n": 0}]


def test_a_pinned_table_does_not_move(at_rest: Platform) -> None:
    """What dbt is told to copy stays what it was, whatever is committed afterwards."""
    lake, table = Lake.from_endpoints(at_rest.endpoints), "marts.pinned_check"
    with trino.connect(at_rest.endpoints, "lake") as connection:
        cursor = connection.cursor()
        cursor.execute(f"CREATE TABLE {table} AS SELECT carrier FROM marts.otp_by_carrier").fetchall()
        try:
            pinned = serving.pin(lake, [table])
            cursor.execute(f"DELETE FROM {table} WHERE carrier <> 'UA'").fetchall()
            at = pinned.tables[table]
            source = f"icebergS3(lake_s3, url = '{at.url}', SETTINGS iceberg_metadata_file_path = '{at.metadata}')"
            assert served_rows(at_rest, f"SELECT count() AS n FROM {source}") == [{"n": 16}]
            assert lake_rows(at_rest, f"SELECT count(*) AS n FROM {table}") == [{"n": 1}]
            assert serving.pin(lake, [table]).hash != pinned.hash
        finally:
            cursor.execute(f"DROP TABLE {table}").fetchall()


def test_a_table_that_is_not_there_is_named(at_rest: Platform) -> None:
    with pytest.raises(PublishError, match=r"the lake has no table marts\.nope, nope\.flights at main@"):
        serving.pin(Lake.from_endpoints(at_rest.endpoints), ["marts.nope", "nope.flights", "cdc_flights.flights"])


def test_a_copy_that_differs_fails_its_test(at_rest: Platform) -> None:
    pinned = serving.pin(Lake.from_endpoints(at_rest.endpoints), {t for tables in dbt.served_tables().values() for t in tables})
    with clickhouse.connect(at_rest.endpoints) as client:
        try:
            copy = f"{NEXT}.otp_by_hour"
            client.command(f"CREATE TABLE {copy} ENGINE = MergeTree ORDER BY origin AS SELECT * FROM {SERVING}.otp_by_hour")
            assert dbt_test(at_rest, pinned, "serve_otp_by_hour").returncode == 0
            change = "avg_dep_delay_min = avg_dep_delay_min + 1e-9 WHERE scheduled_hour = 8 AND origin = 'JFK'"
            client.command(f"ALTER TABLE {copy} UPDATE {change}", settings={"mutations_sync": 2})
            failed = dbt_test(at_rest, pinned, "serve_otp_by_hour")
            assert failed.returncode == 1 and "same_as_lake_serve_otp_by_hour" in failed.stdout, failed.stdout
        finally:
            client.command(f"DROP TABLE IF EXISTS {NEXT}.otp_by_hour SYNC")


def dbt_test(platform: Platform, pinned: serving.Pinned, model: str) -> subprocess.CompletedProcess[str]:
    command = [str(dbt.executable()), "test", "--target", "clickhouse", "--select", model, "--profiles-dir", str(dbt.PROJECT)]
    command += ["--target-path", str(settings.run("dbt-test"))]
    env = {**os.environ, **dbt.environment(platform.endpoints), "SHUDL_PINNED": pinned.for_dbt("test")}
    return subprocess.run(command, cwd=dbt.PROJECT, env=env, capture_output=True, text=True, timeout=120)


class Shelf:
    """Two small tables to publish: what each version holds is its number, in every row."""

    tables = ("shelf_a", "shelf_b")

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.lake = Lake.from_endpoints(platform.endpoints)
        self.commit = Refs(self.lake.nessie_url).hash(BRANCH)

    def build(self, version: int, commit: str | None = None, tables: tuple[str, ...] = tables) -> None:
        """Copies beside what is served, as dbt leaves them."""
        with clickhouse.connect(self.platform.endpoints) as client:
            for table in tables:
                rows = f"SELECT {version} AS n FROM numbers(10)"
                client.command(f"CREATE OR REPLACE TABLE {NEXT}.{table} ENGINE = MergeTree ORDER BY n AS {rows}")
                origin = {"nessie_hash": commit or self.commit, "run_id": "test", "copied_at": datetime.now(UTC).isoformat()}
                client.command(f"ALTER TABLE {NEXT}.{table} MODIFY COMMENT '{json.dumps(origin)}'")

    def publish(self) -> dict[str, serving.Published]:
        return serving.publish(self.platform.endpoints, self.lake, self.commit, self.tables)

    def served(self) -> list[int]:
        """The version of each table that is served."""
        return [served_rows(self.platform, f"SELECT max(n) AS n FROM {SERVING}.{table}")[0]["n"] for table in self.tables]

    def beside(self) -> list[dict[str, Any]]:
        return served_rows(self.platform, f"SELECT name FROM system.tables WHERE database = '{NEXT}' AND name LIKE 'shelf%'")


@pytest.fixture
def shelf(at_rest: Platform) -> Iterator[Shelf]:
    refs = Refs(at_rest.endpoints["shudl_nessie"].url)
    before = refs.hash(PUBLISHED)
    shelf = Shelf(at_rest)
    yield shelf
    with clickhouse.connect(at_rest.endpoints) as client:
        for table in shelf.tables:
            for database in (SERVING, NEXT):
                client.command(f"DROP TABLE IF EXISTS {database}.{table} SYNC")
    refs.assign(PUBLISHED, before)


def test_tables_are_exchanged_together_and_once(shelf: Shelf) -> None:
    shelf.build(1)
    first = shelf.publish()
    assert first.keys() == set(shelf.tables)
    assert {(record.rows, record.nessie_hash) for record in first.values()} == {(10, shelf.commit)}
    shelf.build(2)
    shelf.publish()
    assert (shelf.served(), shelf.beside()) == ([2, 2], [])
    assert shelf.publish().keys() == set(shelf.tables), "called again it changes nothing"
    assert (shelf.served(), shelf.beside()) == ([2, 2], [])


@pytest.mark.parametrize("deed", ["_swap", "_after_swap", "_ensure_records"])
def test_publishing_goes_on_after_it_was_killed(shelf: Shelf, deed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.build(1)
    shelf.publish()
    shelf.build(2)

    def die(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*((Refs, "assign") if deed == "_after_swap" else (serving, deed)), die)
        with pytest.raises(KeyboardInterrupt):
            shelf.publish()
    assert shelf.served() == ([1, 1] if deed == "_swap" else [2, 2])
    shelf.publish()
    assert (shelf.served(), shelf.beside()) == ([2, 2], [])
    assert Refs(shelf.lake.nessie_url).hash(PUBLISHED) == shelf.commit


def test_copies_of_another_commit_are_refused_as_a_whole(shelf: Shelf) -> None:
    shelf.build(1)
    shelf.publish()
    shelf.build(2, tables=("shelf_a",))
    shelf.build(2, tables=("shelf_b",), commit="0" * 64)
    with pytest.raises(PublishError, match=r"^shelf_b: not copied from "):
        shelf.publish()
    assert shelf.served() == [1, 1]


def test_readers_never_see_a_table_missing_or_empty(shelf: Shelf) -> None:
    shelf.build(0)
    shelf.publish()
    seen: list[tuple[int, int]] = []
    done = threading.Event()

    def read() -> None:
        with clickhouse.connect(shelf.platform.endpoints) as client:
            while not done.is_set():
                seen.extend(client.query(f"SELECT count(), max(n) FROM {SERVING}.shelf_a").result_rows)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for version in range(1, 6):
            shelf.build(version)
            shelf.publish()
    finally:
        done.set()
        reader.join()
    assert {count for count, _ in seen} == {10}
    versions = [version for _, version in seen]
    assert versions == sorted(versions) and len(set(versions)) > 2, "the reader saw the versions come, one after the other"
