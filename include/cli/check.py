"""``check``: pipeline files and their databases."""

from __future__ import annotations

from pathlib import Path

from include.cdc.check import check as check_source
from include.cdc.pipelines import Pipeline, PipelineError, files, read_all, read_kinds
from include.cli.console import ME, CliError, complain, say
from include.ingest.landing_options import Folder
from include.ingest.sources import AirbytePipeline
from include.platform.airflow import AirflowClient, AirflowError
from include.platform.endpoints import Endpoints, local_endpoints
from include.platform.settings import Settings, settings


def check(paths: list[Path], offline: bool, s: Settings = settings) -> None:
    """Tell what is right and what is wrong with pipeline files, all by default. Raises :class:`CliError` at the end."""
    everything = files(s.pipelines)
    if not paths and not everything:
        say(f"There is no pipeline file in {s.pipelines}. {ME} source add writes one.")
    asked = {path.resolve(): path for path in paths or everything}
    pipelines, problems = read_all([*asked.values(), *(path for path in everything if path.resolve() not in asked)])
    names = {path.name for path in asked.values()}
    problems = [problem for problem in problems if problem.partition(":")[0] in names]
    endpoints = {} if offline else local_endpoints(s)
    for pipeline in pipelines:
        if pipeline.path and pipeline.path.resolve() in asked:
            count = len(pipeline.tables)
            what = f"source {pipeline.source}, {count} table{'s' * (count != 1)} through connection {pipeline.connection}"
            try:
                how = "file only" if offline else _source(pipeline, endpoints, s)
            except PipelineError as error:
                problems += error.problems
            else:
                say(f"[green]ok[/]  {pipeline.path.name}: {what} [dim]({how})[/]")
    others = read_kinds(asked.values())[0]
    for source in (one for one in others if isinstance(one, AirbytePipeline)):
        by = f"Airbyte server {source.server}" if source.remote else f"{source.connector}=={source.version}"
        count = len(source.streams)
        what = f"source {source.source}, {count} stream{'s' * (count != 1)} by {by}"
        say(f"[green]ok[/]  {source.path.name}: {what} [dim](file only: ingest_{source.source} checks the source)[/]")
    for folder in (one for one in others if isinstance(one, Folder)):
        say(f"[green]ok[/]  {folder.path.name}: files of folder {folder.folder} [dim](file only: ingest_landing reads them)[/]")
    if problems:
        complain("\n".join(problems))
        raise CliError(f"{len(problems)} problem{'s' * (len(problems) != 1)}")


def _source(pipeline: Pipeline, endpoints: Endpoints, s: Settings) -> str:
    """How much of the pipeline was checked. Raises :class:`PipelineError`."""
    if pipeline.connection not in endpoints:
        try:
            with AirflowClient(s) as airflow:
                if airflow.has_connection(pipeline.connection):
                    return f"file only: Airflow alone knows the connection; {ME} run check_pipelines checks the database"
        except AirflowError:
            pass
    check_source(pipeline, endpoints)
    return "file and database"
