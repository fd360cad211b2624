"""The tasks of every DAG that builds marts in the lake and serves them from ClickHouse."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import task

from shudl.dbt import dbt_group

BUILD = timedelta(minutes=30)
RETRIES = {"retries": 2, "retry_delay": timedelta(seconds=5)}


def build_and_serve(tag: str = "") -> None:
    """``marts.*``, ``pin``, ``serving.*``, ``publish``, in the DAG that is being defined.

    For the models that have ``tag``. Without it for those that have none, and for what the pipeline files serve: then the
    lake's branch ``published`` moves along.
    """

    @task(execution_timeout=timedelta(minutes=2), **RETRIES)
    def pin(run_id: str) -> dict[str, str]:
        from include.cdc.pipelines import load_all
        from include.lake.catalog import Lake
        from include.serving import dbt
        from include.serving import publish as serving
        from shudl.endpoints import endpoints

        tables = {table for tables in dbt.served_tables(tag=tag).values() for table in tables}
        if not tag:
            serving.check_served(load_all(), tables)
        pinned = serving.pin(Lake.from_endpoints(endpoints()), tables)
        return {"hash": pinned.hash, "for_dbt": pinned.for_dbt(run_id)}

    @task(execution_timeout=timedelta(minutes=5), pool="clickhouse", **RETRIES)
    def publish(pinned: dict[str, str], dag_run: object) -> str:
        from include.lake.catalog import Lake
        from include.platform.evidence import write_evidence
        from include.serving import dbt
        from include.serving import publish as serving
        from shudl.endpoints import endpoints

        lake, tables = Lake.from_endpoints(endpoints()), dbt.served_tables(tag=tag)
        served = serving.publish(endpoints(), lake, pinned["hash"], tables, branch=not tag)
        return str(write_evidence(dag_run.dag_id, dag_run.run_id, serving.report(served, pinned["hash"], dag_run.start_date)))

    pinned = pin()
    marts = dbt_group("marts", "trino", BUILD, tag=tag)
    env = {"SHUDL_PINNED": "{{ ti.xcom_pull(task_ids='pin')['for_dbt'] }}"}
    serving = dbt_group("serving", "clickhouse", BUILD, env, tag=tag)
    marts >> pinned >> serving >> publish(pinned)
