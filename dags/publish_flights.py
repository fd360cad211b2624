"""Build the marts in the lake, then put them and what a pipeline serves into ClickHouse, all at once."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, task

from shudl.dbt import dbt_group
from shudl.tags import Tag

DOC = """
### Transform and publish the flights

| task | what it does |
| --- | --- |
| `marts.*` | `dbt build` on Trino: the marts as Iceberg tables in `lake.marts`, and their tests |
| `pin` | takes the newest commit of the lake's branch `main`, and where each table that is served is at it |
| `serving.*` | `dbt build` on ClickHouse: copies of these tables as they are at that commit, beside those served now |
| `publish` | exchanges the copies with the tables in `serving`, and moves the branch `published` to the commit |

In each group `dbt_producer_watcher` runs dbt, tests included; the other tasks show what becomes of each model.
`serving._published` tells the commit that each table of ClickHouse was copied from; in Trino the catalog `published`
shows the lake at it. Readers of ClickHouse see the old tables until the new ones are whole and tested.

**When it fails.** A red model or test: the log of its group's `dbt_producer_watcher` has dbt's own words; what ClickHouse
serves is untouched. Mend it, then trigger the DAG again: it starts anew and leaves nothing behind.
"""

with DAG(
    "publish_flights",
    description="Build the marts, test them, and serve them from ClickHouse",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    tags=[Tag.TRANSFORM],
    doc_md=DOC,
) as dag:

    @task(execution_timeout=timedelta(minutes=2), retries=2, retry_delay=timedelta(seconds=5))
    def pin(run_id: str) -> dict[str, str]:
        from include.cdc.pipelines import load_all
        from include.lake.catalog import Lake
        from include.serving import dbt
        from include.serving import publish as serving
        from shudl.endpoints import endpoints

        tables = {table for tables in dbt.served_tables().values() for table in tables}
        serving.check_served(load_all(), tables)
        pinned = serving.pin(Lake.from_endpoints(endpoints()), tables)
        return {"hash": pinned.hash, "for_dbt": pinned.for_dbt(run_id)}

    @task(execution_timeout=timedelta(minutes=5), retries=2, retry_delay=timedelta(seconds=5), pool="clickhouse")
    def publish(pinned: dict[str, str], dag_run: object) -> str:
        from include.lake.catalog import Lake
        from include.platform.evidence import write_evidence
        from include.serving import dbt
        from include.serving import publish as serving
        from shudl.endpoints import endpoints

        served = serving.publish(endpoints(), Lake.from_endpoints(endpoints()), pinned["hash"], dbt.served_tables())
        return str(write_evidence(dag_run.dag_id, dag_run.run_id, serving.report(served, pinned["hash"], dag_run.start_date)))

    pinned = pin()
    marts = dbt_group("marts", "trino", timedelta(minutes=30), without="aircraft")
    env = {"SHUDL_PINNED": "{{ ti.xcom_pull(task_ids='pin')['for_dbt'] }}"}
    serving = dbt_group("serving", "clickhouse", timedelta(minutes=30), env, without="aircraft")
    marts >> pinned >> serving >> publish(pinned)
