"""Change data capture: the lake's tables are the source's, however often the DAG runs."""

from __future__ import annotations

import psycopg

from include.lake.catalog import Lake
from include.platform.trino import connect
from tests.live import Platform, flights_pipeline


def _count(platform: Platform, statement: str) -> int:
    with connect(platform.endpoints, "lake") as connection:
        cursor = connection.cursor()
        cursor.execute(statement)
        return cursor.fetchone()[0]


def _xcoms(platform: Platform, run_id: str) -> dict[str, list[str]]:
    tasks = platform.airflow.task_instances("cdc_flights", run_id)
    return {
        task["task_id"]: platform.airflow.request(
            "GET",
            f"/dags/cdc_flights/dagRuns/{run_id}/taskInstances/{task['task_id']}/xcomEntries/return_value",
            params={"deserialize": "true"},
        )["value"]
        for task in tasks
    }


def test_one_job_a_table(flights: Platform) -> None:
    names = sorted(job["name"] for job in flights.jobs())
    assert names == sorted(flights_pipeline().job(table) for table in flights_pipeline().tables)


def test_second_run_changes_nothing(flights: Platform) -> None:
    ids = {job["jid"] for job in flights.jobs()}
    run_id = flights.start_dag("cdc_flights")
    flights.wait_dag("cdc_flights", run_id)
    jobs = [f"jobs.{flights_pipeline().iceberg_name(table)}" for table in flights_pipeline().tables]
    assert _xcoms(flights, run_id) == {task: [] for task in ("database", "messaging", "lake", "retire", *jobs)}
    assert {job["jid"] for job in flights.jobs()} == ids


def test_source_side(flights: Platform) -> None:
    with psycopg.connect(flights.source) as connection:
        slots = connection.execute(
            "SELECT slot_name, plugin, failover, active FROM pg_replication_slots WHERE NOT temporary"
        ).fetchall()
        published = connection.execute("SELECT count(*) FROM pg_publication_tables WHERE pubname = 'shudl_flights'").fetchone()[0]
    assert slots == [("shudl_flights", "pgoutput", True, True)]
    assert published == len(flights_pipeline().tables) + 1


def test_iceberg_tables_have_keys_and_ids_from_one(flights: Platform) -> None:
    catalog = Lake.from_endpoints(flights.endpoints).pyiceberg()
    for table in flights_pipeline().tables:
        schema = catalog.load_table(flights_pipeline().iceberg_table(table)).schema()
        assert [field.field_id for field in schema.fields] == list(range(1, len(schema.fields) + 1))
        assert schema.identifier_field_names()
        assert [field.name for field in schema.fields][-2:] == ["_lsn", "_committed_at"]


def test_every_kind_of_change_arrives(flights: Platform) -> None:
    """Insert, update, delete, a changed key, several changes to one row in one transaction, NULL and empty text."""
    table = "cdc_flights.airlines"
    with psycopg.connect(flights.source) as connection:
        connection.execute("INSERT INTO airlines VALUES ('ZA', 'Alpha'), ('ZB', 'Beta'), ('ZC', 'Gamma'), ('ZD', '')")
        connection.commit()
        connection.execute("UPDATE airlines SET name = 'Äl‑pha 🛫' WHERE carrier = 'ZA'")
        connection.execute("DELETE FROM airlines WHERE carrier = 'ZB'")
        connection.execute("UPDATE airlines SET carrier = 'ZX' WHERE carrier = 'ZC'")
        connection.execute("UPDATE airlines SET name = '1' WHERE carrier = 'ZD'")
        connection.execute("UPDATE airlines SET name = '' WHERE carrier = 'ZD'")
        connection.commit()
    flights.cover()
    with connect(flights.endpoints, "lake") as connection:
        cursor = connection.cursor()
        cursor.execute(
            "SELECT carrier, name, _lsn > 0, _committed_at > current_timestamp - INTERVAL '10' MINUTE "
            f"FROM {table} WHERE carrier LIKE 'Z%' ORDER BY 1"
        )
        assert [tuple(row) for row in cursor.fetchall()] == [
            ("ZA", "Äl‑pha 🛫", True, True),
            ("ZD", "", True, True),
            ("ZX", "Gamma", True, True),
        ]
    with psycopg.connect(flights.source) as connection:
        connection.execute("DELETE FROM airlines WHERE carrier LIKE 'Z%'")
    flights.cover()
    assert _count(flights, f"SELECT count(*) FROM {table} WHERE carrier LIKE 'Z%'") == 0


def test_a_cancelled_job_goes_on_from_its_checkpoint(flights: Platform) -> None:
    from include.platform.flink import JobManager

    manager = JobManager(flights.endpoints["shudl_flink"].url)
    job = next(job for job in flights.jobs() if job["name"] == "cdc.flights.airlines")
    manager.cancel(job["jid"])
    flights.eventually(lambda: job["jid"] not in {j["jid"] for j in flights.jobs()}, 60, "the job is cancelled")
    with psycopg.connect(flights.source) as connection:
        connection.execute("INSERT INTO airlines VALUES ('ZZ', 'while the job was down')")
    run_id = flights.start_dag("cdc_flights")
    flights.wait_dag("cdc_flights", run_id)
    assert "from checkpoint chk-" in _xcoms(flights, run_id)["jobs.airlines"][0]
    flights.cover()
    assert _count(flights, "SELECT count(*) FROM cdc_flights.airlines WHERE carrier = 'ZZ'") == 1
    with psycopg.connect(flights.source) as connection:
        connection.execute("DELETE FROM airlines WHERE carrier = 'ZZ'")
