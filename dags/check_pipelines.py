"""Check every pipeline file and its source, through Airflow's own connections."""

from __future__ import annotations

from airflow.sdk import DAG, task

from include.cdc.pipelines import PipelineError, files, read_all
from shudl.tags import Tag

DOC = """
### Check the pipelines

The same as `./shudl check`, but through Airflow's connections: each source's server, role, slot, tables, keys and types.
Changes nothing.

**When it fails.** Each line names file and line, what is wrong and the way out. A pipeline file that cannot be used is an
import error of this DAG's file, and has neither `cdc_<source>` nor `prove_<source>` until it is mended.
"""

with DAG(
    "check_pipelines",
    description="Check every pipeline file and its source; changes nothing",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    tags=[Tag.CDC],
    doc_md=DOC,
):

    @task
    def check() -> list[str]:
        from airflow.sdk.exceptions import AirflowFailException

        from include.cdc.check import check
        from shudl.endpoints import endpoints

        pipelines, problems = read_all(files())
        for pipeline in pipelines:
            try:
                check(pipeline, endpoints())
            except PipelineError as error:
                problems += error.problems
        if problems:
            raise AirflowFailException("\n".join(problems))
        return [pipeline.source for pipeline in pipelines]

    check()

if problems := read_all(files())[1]:
    raise PipelineError(problems)
