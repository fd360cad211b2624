"""One DAG for each pipeline file: ``cdc_<source>`` makes the world match the file."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, AssetOrTimeSchedule, DeltaTriggerTimetable, TaskGroup, task

from include.cdc.pipelines import Pipeline, load_all
from shudl.assets import FLINK_JOBS, PLATFORM
from shudl.tags import Tag

DOC = """
### Keep the lake's tables equal to a source's

Reconciles what the pipeline file says of this source; does nothing where the world matches it already.

| task | what it makes |
| --- | --- |
| `database` | heartbeat table, replica identities, publication; first it checks file and source |
| `messaging` | topics, subjects, the Debezium connector with its failover-ready slot |
| `lake` | namespace and Iceberg tables |
| `retire` | cancels the Flink jobs of tables and modes that the file no longer has; what they wrote stays |
| `jobs.*` | a Flink job for each mirror, which goes on from its last retained checkpoint, and for each changelog |

Runs every five minutes, after each run of `platform_bootstrap`, and as soon as Flink's job manager is there again after
a restart: it forgets its jobs, and a watcher in the triggerer (`shudl.flink`) sees that.
Each task returns the list of what it changed. A job that runs is never awaited.

**When it fails.** The error names the table, slot, connector or job, its own first cause and the way out.
Trigger the DAG again afterwards: it goes on from what is there.
"""


def cdc_dag(pipeline: Pipeline) -> DAG:
    """The reconciling DAG of one pipeline."""
    with DAG(
        f"cdc_{pipeline.source}",
        description=f"Keep {len(pipeline.tables)} tables of {pipeline.source} in the lake",
        schedule=AssetOrTimeSchedule(timetable=DeltaTriggerTimetable(timedelta(minutes=5)), assets=PLATFORM | FLINK_JOBS),
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=True,
        default_args={"retries": 2, "retry_delay": timedelta(seconds=5), "execution_timeout": timedelta(minutes=5)},
        tags=[Tag.CDC],
        doc_md=DOC,
    ) as dag:

        @task
        def database() -> list[str]:
            from airflow.sdk.exceptions import AirflowFailException

            from include.cdc.check import SourceUnreachable
            from include.cdc.pipelines import PipelineError
            from include.cdc.reconcile import reconcile_database
            from shudl.endpoints import endpoints

            try:
                return reconcile_database(pipeline, endpoints())
            except SourceUnreachable:
                raise
            except PipelineError as error:  # what a person has to mend is not tried again
                raise AirflowFailException(str(error)) from None

        @task
        def messaging() -> list[str]:
            from include.cdc.reconcile import reconcile_messaging
            from shudl.endpoints import endpoints

            return reconcile_messaging(pipeline, endpoints())

        @task
        def lake() -> list[str]:
            from include.cdc.reconcile import reconcile_lake
            from shudl.endpoints import endpoints

            return reconcile_lake(pipeline, endpoints())

        @task
        def retire() -> list[str]:
            from include.cdc.reconcile import retire
            from shudl.endpoints import endpoints

            return retire(pipeline, endpoints())

        @task(pool="flink")
        def job(table: str) -> list[str]:
            from include.cdc.reconcile import reconcile_table_jobs
            from shudl.endpoints import endpoints

            return reconcile_table_jobs(pipeline, endpoints(), table)

        with TaskGroup("jobs") as jobs:
            for table in pipeline.tables:
                job.override(task_id=pipeline.iceberg_name(table))(table)

        database() >> [messaging(), lake(), retire()] >> jobs
    return dag


for pipeline in load_all():
    globals()[f"cdc_{pipeline.source}"] = cdc_dag(pipeline)
