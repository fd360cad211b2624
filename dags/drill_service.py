"""Services are killed in turn while changes flow: how long until each works again, and the proof that nothing is lost."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, task

from include.drills.choices import SERVICES, STREAM
from shudl.tags import Tag

DOC = """
### Kill services, one after the other

Each service of `services` is ended without warning while 50 rows a second are written to PostgreSQL, and is started again at
once, by Docker or supervisord. Of etcd it is one member; `standby` is PostgreSQL's. Measures from the kill until the service
works, until the lake has everything that was committed by then, and the longest time without an acknowledged write; looks up
every acknowledged row; proves source, Iceberg and ClickHouse equal. Writes `evidence/drill_service/<run>-<service>.json` for
each. The rows are taken away at the end.

**When it fails.** The error says what was waited for and what was there instead. `./shudl status`, `./shudl logs NAME`. Clear the
failed task, or run the DAG again: it begins by starting what is down and waiting until all works.
"""

with DAG(
    "drill_service",
    description="Kill services in turn while changes flow, and prove that nothing is lost",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args={"execution_timeout": timedelta(minutes=40), "pool": "drill"},
    tags=[Tag.DRILL, Tag.PROOF],
    doc_md=DOC,
    params={
        "services": Param(
            list(STREAM),
            type="array",
            items={"type": "string", "enum": list(SERVICES)},
            minItems=1,
            description="What is killed, in this order",
        )
    },
) as dag:

    @task
    def choose(params: dict) -> list[str]:
        return params["services"]

    @task(max_active_tis_per_dagrun=1, map_index_template="{{ service }}")
    def drill(service: str, dag_run: Any) -> dict:
        from airflow.sdk import get_current_context

        from shudl.drills import drilled

        get_current_context()["service"] = service
        return drilled(service, "kill", dag_run)

    drill.expand(service=choose())
