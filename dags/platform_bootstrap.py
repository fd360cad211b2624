"""The platform's services: start what does not run, await it, and see that it works."""

from __future__ import annotations

from airflow.sdk import DAG, TaskGroup, TriggerRule

from include.platform.catalog import EXTERNAL, LAYERS, SERVICES
from shudl.assets import PLATFORM
from shudl.operators import CheckExternal, CheckService, StartService, WaitForService, WriteBootstrapEvidence
from shudl.tags import Tag

DOC = """
### Start and validate the platform

For each service, in the order that the catalogue (`include/platform/catalog.py`) gives:

| task | what it does |
| --- | --- |
| `start` | starts the service, unless it runs already; one that `SHUDL_EXTERNAL` names is external, validated only |
| `healthy` | waits, in the triggerer, until the service says that it is ready |
| `works` | uses the service as ShuDL does: writes and reads, produces and consumes, runs a query |

A service that this machine cannot run (Spark without a Java that fits) is skipped, with the reason in the log of `start`.
Where services are external, `external` first sees that their connections are there and agree with the settings.
A service starts once what it needs works. On a healthy platform nothing is started: the run only validates.
The last task writes `evidence/platform_bootstrap/<run>.json` and fails when any service did.

**When it fails.** Look at the failed task's log: it names the service, its state and the last reason.
`./shudl logs NAME` has the service's own words, `./shudl doctor` looks for what the machine lacks.
Then clear the failed task or trigger the DAG again: what runs stays untouched.
"""

with DAG(
    "platform_bootstrap",
    description="Start what does not run, and see that every service works",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    max_active_tasks=64,
    is_paused_upon_creation=False,
    tags=[Tag.PLATFORM],
    doc_md=DOC,
) as dag:
    tasks: dict[str, dict] = {}
    for layer in LAYERS:
        with TaskGroup(layer):
            for service in (s for s in SERVICES if s.layer == layer):
                with TaskGroup(service.name, tooltip=service.title):
                    start = StartService(task_id="start", service=service.name)
                    healthy = WaitForService(task_id="healthy", service=service.name)
                    works = CheckService(task_id="works", service=service.name, retries=1)
                    start >> healthy >> works
                tasks[service.name] = {"start": start, "healthy": healthy, "works": works}

    for service in SERVICES:
        [tasks[needed]["works"] for needed in service.needs] >> tasks[service.name]["start"]
        [tasks[needed]["healthy"] for needed in service.check_needs] >> tasks[service.name]["works"]

    if EXTERNAL:  # before anything starts
        CheckExternal(task_id="external") >> [deeds["start"] for deeds in tasks.values() if not deeds["start"].upstream_list]

    evidence = WriteBootstrapEvidence(
        task_id="evidence",
        tasks={name: {deed: task.task_id for deed, task in deeds.items()} for name, deeds in tasks.items()},
        trigger_rule=TriggerRule.ALL_DONE,
        outlets=[PLATFORM],
    )
    [deeds["works"] for deeds in tasks.values()] >> evidence
