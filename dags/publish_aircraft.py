"""Build the mart of the aircraft files that were landed, and serve it from ClickHouse."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, task

from shudl.assets import lake_table
from shudl.dbt import dbt_group
from shudl.tags import Tag

TAG = "aircraft"
"""What its models are tagged with."""

DOC = """
### Transform and publish what files tell of aircraft

Runs when `ingest_landing` has given rows to `raw.aircraft` (docs/landing.md): no timetable. The steps are those of
`publish_flights`, for the models with the tag `aircraft`; the mart joins the files with the flights, as `publish_flights` built
them last. The branch `published` stays where `publish_flights` put it.

**When it fails.** A table that is missing: run `publish_flights`, or put a file into the folder `aircraft` of the landing bucket.
A red model or test: the log of its group's `dbt_producer_watcher` has dbt's own words; what ClickHouse serves is untouched.
Trigger the DAG again: it starts anew.
"""

with DAG(
    "publish_aircraft",
    description="Build and serve the mart of the aircraft files, when they have come",
    schedule=[lake_table("raw.aircraft")],
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    tags=[Tag.TRANSFORM],
    doc_md=DOC,
) as dag:

    @task(execution_timeout=timedelta(minutes=2), retries=2, retry_delay=timedelta(seconds=5))
    def pin(run_id: str) -> dict[str, str]:
        from include.lake.catalog import Lake
        from include.serving import dbt
        from include.serving import publish as serving
        from shudl.endpoints import endpoints

        tables = {table for tables in dbt.served_tables(tag=TAG).values() for table in tables}
        pinned = serving.pin(Lake.from_endpoints(endpoints()), tables)
        return {"hash": pinned.hash, "for_dbt": pinned.for_dbt(run_id)}

    @task(execution_timeout=timedelta(minutes=5), retries=2, retry_delay=timedelta(seconds=5), pool="clickhouse")
    def publish(pinned: dict[str, str], dag_run: object) -> str:
        from include.lake.catalog import Lake
        from include.platform.evidence import write_evidence
        from include.serving import dbt
        from include.serving import publish as serving
        from shudl.endpoints import endpoints

        lake, tables = Lake.from_endpoints(endpoints()), dbt.served_tables(tag=TAG)
        served = serving.publish(endpoints(), lake, pinned["hash"], tables, branch=False)
        return str(write_evidence(dag_run.dag_id, dag_run.run_id, serving.report(served, pinned["hash"], dag_run.start_date)))

    pinned = pin()
    marts = dbt_group("marts", "trino", timedelta(minutes=30), tag=TAG)
    env = {"SHUDL_PINNED": "{{ ti.xcom_pull(task_ids='pin')['for_dbt'] }}"}
    serving = dbt_group("serving", "clickhouse", timedelta(minutes=30), env, tag=TAG)
    marts >> pinned >> serving >> publish(pinned)
