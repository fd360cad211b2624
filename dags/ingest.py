"""One DAG for each pipeline file of kind airbyte: ``ingest_<source>`` brings what is new in a source into the lake."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from include.ingest.sources import AirbytePipeline, load_sources
from shudl.assets import lake_table
from shudl.tags import Tag

DOC = """
### Bring what is new in a source into the lake

| task | what it does |
| --- | --- |
| `extract` | installs the connector at its first use, checks the configuration by its specification, and reads into Kafka |
| `load` | one Spark application writes the topics into the tables `raw.<stream>`, each record once |
| `sync` | instead of the two, where the pipeline file names an Airbyte server: runs the sync there |

Each table is an asset, `shudl://lake/raw.<stream>`, by which other DAGs may be scheduled. The counts of a run are its evidence.

**When it fails.** The error names the file and line, or the stream, its own first cause and the way out. What was read before
is kept, nothing half done is: trigger the DAG again. Records that did not become rows are in `raw.dead_letters`, with the
reason; too many of them fail `load` after it has written the rest. `replay_dead_letters` tries them again.
"""


def ingest_dag(pipeline: AirbytePipeline) -> DAG:
    """The DAG of one source."""
    tables = [lake_table(table) for table in pipeline.writes]
    with DAG(
        f"ingest_{pipeline.source}",
        description=f"Bring {len(pipeline.streams)} streams of {pipeline.source} into the lake",
        schedule=pipeline.schedule or None,
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=False,
        default_args={"retries": 2, "retry_delay": timedelta(seconds=10), "execution_timeout": timedelta(hours=12)},
        tags=[Tag.INGEST],
        doc_md=DOC,
    ) as dag:
        if pipeline.remote:
            from airflow.providers.airbyte.operators.airbyte import AirbyteTriggerSyncOperator

            AirbyteTriggerSyncOperator(
                task_id="sync",
                airbyte_conn_id=pipeline.server,
                connection_id=pipeline.server_connection,
                timeout=timedelta(hours=12).total_seconds(),
                outlets=tables,
            )
            return dag

        @task
        def extract(run_id: str) -> dict[str, Any]:
            import logging

            from airflow.sdk.exceptions import AirflowFailException

            from include.cdc.pipelines import PipelineError
            from include.ingest.airbyte import extract
            from shudl.endpoints import endpoints

            try:
                return extract(pipeline, endpoints(), run_id, logging.getLogger("airflow.task").info)
            except PipelineError as error:  # what a person has to mend is not tried again
                raise AirflowFailException(str(error)) from None

        @task(outlets=tables)
        def load(extracted: dict[str, Any], dag_run: Any = None) -> dict[str, Any]:
            from airflow.sdk.exceptions import AirflowFailException

            from include.ingest.deadletters import Refused
            from include.ingest.stream import load
            from include.platform.evidence import write_evidence
            from shudl.endpoints import endpoints

            try:
                loaded = load(pipeline, endpoints(), dag_run.run_id)
            except Refused as error:  # another try would find nothing left to read, and pass
                raise AirflowFailException(str(error)) from None
            write_evidence(dag_run.dag_id, dag_run.run_id, {"extracted": extracted, "loaded": loaded})
            return loaded

        load(extract())
    return dag


for pipeline in load_sources():
    globals()[f"ingest_{pipeline.source}"] = ingest_dag(pipeline)
