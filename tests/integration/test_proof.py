"""The proof finds what is wrong, names it, and finds nothing else, while the replay goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from include.platform.evidence import latest_evidence
from include.proof import Report, prove, stores
from include.proof.report import KINDS
from include.serving import clickhouse
from tests.live import Platform, flights_pipeline

RATE, SECONDS, PROOFS = 30, 30, 6
UNTOUCHED = 1_000_000_000
"""Added to a flight's id it gives one that the replay never uses; flights of January are not replayed either."""


def proof(platform: Platform, timeout_s: float = 300) -> Report:
    return prove(flights_pipeline(), platform.endpoints, timeout_s)


def found(report: Report, right: str) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """What the report lists of the pairs of stores whose second is ``right``: by table and kind."""
    pairs = ((c, kind) for c in report.comparisons if c.right == right for kind in KINDS)
    return {(c.table, kind): getattr(c, kind).rows for c, kind in pairs if getattr(c, kind).count}


def in_lake(platform: Platform, statement: str) -> None:
    """Write one row of a mirror."""
    assert platform.in_lake(statement) == [(1,)], statement


def in_clickhouse(platform: Platform, *statements: str) -> None:
    with clickhouse.connect(platform.endpoints) as client:
        for statement in statements:
            client.command(statement)


@contextmanager
def rewriting(platform: Platform, statement: str, every_s: float) -> Iterator[None]:
    """The statement runs again and again within the block."""
    stop = threading.Event()

    def run() -> None:
        with psycopg.connect(platform.source, autocommit=True) as connection:
            while not stop.wait(every_s):
                connection.execute(statement)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_equal_while_the_replay_runs(flights: Platform) -> None:
    with flights.traffic(RATE, SECONDS):
        report = proof(flights)
    assert report.unresolved == 0 and report.verdict == "equal", report.text()
    mirrors = {c.table: c for c in report.comparisons if c.right == "iceberg"}
    assert set(mirrors) == set(flights_pipeline().tables)
    assert mirrors["public.flights"].left_rows > 300_000
    assert mirrors["public.airlines"].left_rows == mirrors["public.airlines"].right_rows == 16
    assert report.snapshot_lsn and report.coverage["lsn"] and report.nessie["main"]
    assert report.versions.keys() >= {"postgres", "trino"}


def test_nothing_is_left_in_the_source(flights: Platform) -> None:
    proof(flights)
    with psycopg.connect(flights.source) as connection:
        slots = connection.execute("SELECT slot_name FROM pg_replication_slots").fetchall()
        sessions = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'shudl proof'").fetchone()
    assert slots == [("shudl_flights",)]
    assert sessions == (0,)


def test_planted_rows_are_named_and_repaired_ones_are_not(flights: Platform) -> None:
    """One wrong value, one missing row, one extra row, one row twice; all in the lake, with the replay running."""
    columns = (
        "year, month, day, dep_time, sched_dep_time, dep_delay, arr_time, sched_arr_time, arr_delay, carrier, flight, tailnum, "
        "origin, dest, air_time, distance, hour, minute, time_hour, _lsn, _committed_at"
    )
    copy = f"INSERT INTO cdc_flights.flights SELECT id + {UNTOUCHED}, {columns} FROM cdc_flights.flights WHERE id = 3"
    with flights.traffic(RATE, SECONDS):
        in_lake(flights, "UPDATE cdc_flights.planes SET model = 'wrong | ~', seats = NULL WHERE tailnum = 'N10156'")
        in_lake(flights, "DELETE FROM cdc_flights.airports WHERE faa = 'LGA'")
        in_lake(flights, copy)
        in_lake(flights, "INSERT INTO cdc_flights.airlines SELECT * FROM cdc_flights.airlines WHERE carrier = 'UA'")
        report = proof(flights)
        assert found(report, "iceberg") == {
            ("public.planes", "different"): [
                {
                    "key": {"tailnum": "N10156"},
                    "columns": {
                        "model": {"postgres": "EMB-145XR", "iceberg": "wrong | ~"},
                        "seats": {"postgres": "55", "iceberg": None},
                    },
                }
            ],
            ("public.airports", "missing"): [{"key": {"faa": "LGA"}}],
            ("public.flights", "extra"): [{"key": {"id": str(UNTOUCHED + 3)}}],
            ("public.airlines", "extra"): [{"key": {"carrier": "UA"}, "rows": 2}],
        }
        assert report.unresolved == 4
        assert "public.airports, postgres → iceberg: 1 missing: faa=LGA" in report.text()
        assert "1 different: tailnum=N10156 (model: 'EMB-145XR' → 'wrong | ~', seats: '55' → NULL)" in report.text()
    # Any change of a row makes its mirror right again; a row that the source never had has to go.
    with psycopg.connect(flights.source) as connection:
        connection.execute("UPDATE planes SET tailnum = tailnum WHERE tailnum = 'N10156'")
        connection.execute("UPDATE airports SET faa = faa WHERE faa = 'LGA'")
        connection.execute("UPDATE airlines SET name = name WHERE carrier = 'UA'")
    in_lake(flights, f"DELETE FROM cdc_flights.flights WHERE id = {UNTOUCHED + 3}")
    report = proof(flights)
    assert report.unresolved == 0, report.text()


def test_rows_that_change_all_the_time_are_no_differences(flights: Platform) -> None:
    """Hundreds of rows get other values twice a second, one row twenty times a second."""
    some = "UPDATE planes SET seats = (seats + 1000) % 30000 WHERE tailnum < 'N2'"
    with rewriting(flights, some, 0.5), rewriting(flights, "UPDATE airports SET alt = alt + 10000 WHERE faa = 'JFK'", 0.05):
        for _ in range(PROOFS):  # how much of the changes the lake has at the moment of one is chance
            report = proof(flights)
            changing = {c.table: c for c in report.comparisons if c.buckets_differing}
            assert report.unresolved == 0, report.text()
            if "public.airports" in changing and "public.planes" in changing and changing["public.planes"].read_again > 100:
                break
    with psycopg.connect(flights.source) as connection:
        connection.execute("UPDATE planes SET seats = seats % 1000 WHERE seats >= 1000")
        connection.execute("UPDATE airports SET alt = alt % 10000 WHERE faa = 'JFK'")
    assert {"public.planes", "public.airports"} <= set(changing), "the values changed while the stores were read"
    assert changing["public.planes"].read_again > 100
    after = proof(flights)
    assert after.unresolved == after.moving == 0 and after.verdict == "equal"


def test_a_long_transaction_in_the_source_is_named(flights: Platform) -> None:
    with psycopg.connect(flights.source) as connection:
        connection.execute("UPDATE shudl.heartbeat SET beat = beat")
        waiting = stores.snapshot(flights_pipeline(), flights.endpoints, 1, timeout_s=1)
        with pytest.raises(stores.ProofError, match="a transaction that writes has not ended"), waiting:
            pytest.fail("a snapshot that cannot be consistent")


def test_served_copy(published: Platform) -> None:
    report = proof(published)
    (copy,) = (c for c in report.comparisons if c.right == "clickhouse")
    assert (copy.table, copy.state, copy.unresolved) == ("public.flights", "equal", 0)
    assert copy.left_rows == copy.right_rows > 300_000
    assert report.nessie["published"] and report.versions["clickhouse"]


def test_planted_rows_in_clickhouse_are_named(published: Platform) -> None:
    fourth = "SELECT * FROM serving.flights WHERE id = 4"
    ids = f"id IN (1, 2, {UNTOUCHED + 4})"
    in_clickhouse(
        published,
        "CREATE OR REPLACE TABLE serving_next.kept ENGINE = Memory AS SELECT * FROM serving.flights WHERE id IN (1, 2)",
        "ALTER TABLE serving.flights UPDATE tailnum = NULL, _lsn = _lsn + 1 WHERE id = 1 SETTINGS mutations_sync = 2",
        "DELETE FROM serving.flights WHERE id = 2 SETTINGS lightweight_deletes_sync = 2",
        f"INSERT INTO serving.flights SELECT * REPLACE (id + {UNTOUCHED} AS id) FROM ({fourth})",
    )
    try:
        report = proof(published)
    finally:
        in_clickhouse(
            published,
            f"DELETE FROM serving.flights WHERE {ids} SETTINGS lightweight_deletes_sync = 2",
            "INSERT INTO serving.flights SELECT * FROM serving_next.kept",
            "DROP TABLE serving_next.kept SYNC",
        )
    listed = found(report, "clickhouse")
    different = listed.pop(("public.flights", "different"))
    assert listed == {
        ("public.flights", "missing"): [{"key": {"id": "2"}}],
        ("public.flights", "extra"): [{"key": {"id": str(UNTOUCHED + 4)}}],
    }
    assert [row["key"] for row in different] == [{"id": "1"}]
    assert different[0]["columns"]["tailnum"] == {"iceberg": "N14228", "clickhouse": None}
    lsn = different[0]["columns"]["_lsn"]
    assert int(lsn["clickhouse"]) == int(lsn["iceberg"]) + 1
    assert set(different[0]["columns"]) == {"tailnum", "_lsn"}
    assert report.unresolved == 3
    assert proof(published).unresolved == 0


def test_dag_writes_evidence_and_fails_on_a_difference(flights: Platform) -> None:
    evidence = flights.prove()
    assert {c["table"] for c in evidence["comparisons"]} == set(flights_pipeline().tables)
    in_lake(flights, "UPDATE cdc_flights.airlines SET name = 'wrong' WHERE carrier = 'DL'")
    try:
        run_id = flights.start_dag("prove_flights")
        assert flights.airflow.wait("prove_flights", run_id, timeout_s=300) == "failed"
        (task,) = flights.airflow.task_instances("prove_flights", run_id)
        log = flights.airflow.task_log("prove_flights", run_id, task["task_id"], task["try_number"])
        assert "public.airlines" in log and "1 different: carrier=DL" in log
        evidence = latest_evidence("prove_flights")
        assert evidence is not None and (evidence["run_id"], evidence["unresolved"]) == (run_id, 1)
    finally:
        with psycopg.connect(flights.source) as connection:
            connection.execute("UPDATE airlines SET name = name WHERE carrier = 'DL'")
    flights.prove()
