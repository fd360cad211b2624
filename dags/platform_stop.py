"""The platform's services, stopped in the reverse of the order in which they start."""

from __future__ import annotations

from airflow.sdk import DAG, Param, TriggerRule

from include.platform.catalog import SERVICES
from shudl.operators import StopService
from shudl.tags import Tag

DOC = """
### Stop the platform

Stops each service once everything that needs it has ended. Airflow itself goes on (`./shudl down` ends it too).
External services (`SHUDL_EXTERNAL`) are left alone.

**services** (parameter): names of the services to stop; empty stops all.

**When it fails.** A service that does not end in time is killed by the supervisor; a failed task means that the
supervisor itself did not answer: `./shudl status`, then trigger the DAG again.
"""

with DAG(
    "platform_stop",
    description="Stop the services, those that are needed last",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    tags=[Tag.PLATFORM],
    doc_md=DOC,
    params={
        "services": Param(
            [],
            type="array",
            items={"type": "string", "enum": [service.name for service in SERVICES]},
            description="Services to stop; empty stops all",
        )
    },
) as dag:
    tasks = {
        service.name: StopService(
            task_id=service.name,
            service=service.name,
            services="{{ params.services | join(',') }}",
            trigger_rule=TriggerRule.ALL_DONE,
        )
        for service in SERVICES
    }
    for service in SERVICES:
        for needed in (*service.needs, *service.check_needs):
            tasks[service.name] >> tasks[needed]
