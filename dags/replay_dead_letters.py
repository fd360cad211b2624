"""Try again what did not become rows, after what was wrong has been mended."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, AssetAlias, Param, task

from shudl.assets import lake_table
from shudl.tags import Tag

REPLAYED = AssetAlias("replayed")

DOC = """
### Try dead letters again

`raw.dead_letters` has what did not become a row, with its bytes, the reason and where it came from. This DAG tries the open
ones of a table again, or of all tables: those that are rows now are marked as replayed, the others stay open.

**When it fails.** The error names the table and the way out. Trigger the DAG again: what was written is not written twice.
"""

with DAG(
    "replay_dead_letters",
    description="Try again what did not become rows",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10), "execution_timeout": timedelta(hours=2)},
    tags=[Tag.INGEST],
    doc_md=DOC,
    params={"target": Param("", type="string", description="The table, for example raw.users; all tables when empty")},
):

    @task(outlets=[REPLAYED])
    def replay(params: dict[str, Any], dag_run: Any, outlet_events: Any = None) -> dict[str, Any]:
        from dataclasses import asdict

        from include.ingest.deadletters import replay, targets
        from include.lake.catalog import Lake
        from include.platform.evidence import write_evidence
        from shudl.endpoints import endpoints

        found = endpoints()
        chosen = [params["target"]] if params["target"] else targets(Lake.from_endpoints(found))
        told = {}
        for target in chosen:
            counts = replay(found, target, dag_run.run_id)
            told[target] = asdict(counts)
            if counts.written:
                outlet_events[REPLAYED].add(lake_table(target))
        write_evidence(dag_run.dag_id, dag_run.run_id, {"tables": told})
        return told

    replay()
