"""Files that are put into the landing bucket become rows of the lake."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, AssetAlias, TriggerRule, task

from shudl.assets import lake_table
from shudl.landing import ARRIVALS
from shudl.tags import Tag

LANDED = AssetAlias("landed")
"""The tables that got rows, each as its own asset: ``shudl://lake/raw.<folder>``."""

DOC = """
### Load the files of the landing bucket

`<folder>/<file>` in the bucket `landing` becomes rows of `raw.<folder>`: CSV, JSON lines, Parquet; of any other file one row
in `raw.objects` tells what it is. An arriving file starts a run, and so may you: each version of a file is loaded once.

| task | what it does |
| --- | --- |
| `find` | compares the bucket with the ledger `raw.landing_files` |
| `load` | for each folder with files that are due: reads, converts and commits them, rows and ledger in one commit |
| `verdict` | writes the evidence; fails when a file could not be loaded |

Each table that got rows is an asset, `shudl://lake/raw.<folder>`, by which other DAGs may be scheduled.

**When it fails.** `verdict` names each file and why. Its table is as it was. Mend the file and put it there again, or say in a
pipeline file how it is to be read (docs/landing.md), and trigger the DAG. Lines that did not become rows are in
`raw.dead_letters`, with the reason; `replay_dead_letters` tries them again.
"""

with DAG(
    "ingest_landing",
    description="Load what is put into the landing bucket",
    schedule=[ARRIVALS],
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args={"retries": 3, "retry_delay": timedelta(seconds=5)},
    tags=[Tag.INGEST],
    doc_md=DOC,
) as dag:

    @task(execution_timeout=timedelta(minutes=5))
    def find(ti: Any = None) -> list[str]:
        from include.ingest.landing import due
        from shudl.endpoints import endpoints

        folders, problems = due(endpoints())
        ti.xcom_push("problems", problems)
        return sorted(folders)

    @task(execution_timeout=timedelta(hours=6), pool="landing", outlets=[LANDED], map_index_template="{{ folder }}")
    def load(folder: str, run_id: str, outlet_events: Any = None) -> dict[str, Any]:
        from dataclasses import asdict

        from airflow.sdk import get_current_context

        from include.ingest.landing import load
        from shudl.endpoints import endpoints

        get_current_context()["folder"] = folder
        report = load(endpoints(), folder, run_id)
        for table in report.tables:
            outlet_events[LANDED].add(lake_table(table))
        return asdict(report)

    @task(trigger_rule=TriggerRule.NONE_FAILED, execution_timeout=timedelta(minutes=2))
    def verdict(ti: Any = None, dag_run: Any = None) -> str:
        from airflow.sdk.exceptions import AirflowFailException

        from include.ingest.deadletters import IngestError
        from include.ingest.landing import verdict
        from include.platform.evidence import write_evidence

        found = ti.xcom_pull(task_ids="load") or []
        reports = [found] if isinstance(found, dict) else list(found)
        problems = ti.xcom_pull(task_ids="find", key="problems") or []
        write_evidence(dag_run.dag_id, dag_run.run_id, {"folders": reports, "problems": problems})
        try:
            return verdict(reports, problems)
        except IngestError as error:  # what a person has to mend is not tried again
            raise AirflowFailException(str(error)) from None

    load.expand(folder=find()) >> verdict()
