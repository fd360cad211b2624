"""PostgreSQL's primary hands over, or is killed, while changes flow: the outage, what was lost, and the proof."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, task

from include.drills.choices import POSTGRES_FAULTS
from shudl.tags import Tag

DOC = """
### Let PostgreSQL fail over

For the cluster of the container platform. Waits until it is whole and the standby has a copy of every failover slot; writes 50
rows a second through HAProxy, which the flights pipeline carries to the lake; then

| `fault` | what happens |
| --- | --- |
| `switchover` | Patroni is asked to hand over to the standby |
| `kill` | the primary's container is ended without warning, and started again once there is another primary |

Measures the longest time without an acknowledged write, looks up every acknowledged row, waits until the lake has everything
and the cluster is whole again, and proves source, Iceberg and ClickHouse equal. Writes
`evidence/drill_postgres_failover/<run>.json`. The rows are taken away at the end.

**When it fails.** The error says what was waited for and what was there instead. `./shudl status`, then
docs/postgresql-ha.md. A second run begins by starting what is down and waiting until all works.
"""

with DAG(
    "drill_postgres_failover",
    description="Fail PostgreSQL over while changes flow, and prove that nothing is lost",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args={"execution_timeout": timedelta(minutes=40), "pool": "drill"},
    tags=[Tag.DRILL, Tag.PROOF],
    doc_md=DOC,
    params={"fault": Param("switchover", type="string", enum=list(POSTGRES_FAULTS), description="What happens to the primary")},
) as dag:

    @task
    def drill(params: dict, dag_run: Any) -> dict:
        from shudl.drills import drilled

        return drilled("postgresql", params["fault"], dag_run)

    drill()
