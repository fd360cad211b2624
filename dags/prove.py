"""One DAG for each pipeline file: ``prove_<source>`` compares its stores row by row."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, task

from include.cdc.pipelines import Pipeline, load_all
from shudl.tags import Tag

DOC = """
### Prove that the stores hold the same rows

Compares every row and column of a source's tables in PostgreSQL and Iceberg, and of the served ones in Iceberg and
ClickHouse at the commit that was published. Changelogs are folded and compared with PostgreSQL. Nothing has to stand
still: a row that was in flight is read again until it settles. Writes `evidence/prove_<source>/<run>.json`.

**When it fails.** Differences: the error names the table, the stores, the keys and the values; the evidence lists the
first 100 keys of each kind. `the lake lacks changes`, `connector … acknowledged`: the stream stands still; see
`./shudl status`, then run `cdc_<source>`. Trigger the DAG again afterwards.
"""


def prove_dag(pipeline: Pipeline) -> DAG:
    """The DAG that proves one pipeline."""
    with DAG(
        f"prove_{pipeline.source}",
        description=f"Compare every row of {len(pipeline.tables)} tables of {pipeline.source}, store by store",
        schedule=None,
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=False,
        default_args={"execution_timeout": timedelta(hours=2)},
        tags=[Tag.PROOF],
        doc_md=DOC,
        params={"timeout_s": Param(600, type="integer", minimum=10, maximum=7000, description="Give up after this many seconds")},
    ) as dag:

        @task
        def prove(params: dict, dag_run: Any) -> dict:
            import logging

            from airflow.sdk.exceptions import AirflowFailException

            from include import proof
            from include.platform.evidence import write_evidence
            from shudl.endpoints import endpoints

            report = proof.prove(pipeline, endpoints(), params["timeout_s"], logging.getLogger("airflow.task").info)
            path = write_evidence(dag_run.dag_id, dag_run.run_id, report.to_json())
            if report.unresolved:
                raise AirflowFailException(f"{report.text()}\n{path}")
            return {"verdict": report.verdict, "unresolved": 0, "settled": report.settled, "seconds": report.seconds["total"]}

        prove()
    return dag


for pipeline in load_all():
    globals()[f"prove_{pipeline.source}"] = prove_dag(pipeline)
