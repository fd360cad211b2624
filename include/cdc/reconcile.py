"""The steps of a pipeline's reconciliation, as the DAG ``cdc_<source>`` calls them.

Each step makes the world match the pipeline file, does nothing when it already does, and returns what it changed.
"""

from __future__ import annotations

from pathlib import Path

from include.cdc import check, connector, topics
from include.cdc import tables as lake_tables
from include.cdc.jobs import TableJob, reconcile_job, retire_jobs
from include.cdc.pipelines import Pipeline
from include.cdc.source import SourceTable, describe, reconcile_source
from include.lake.catalog import Lake
from include.platform.endpoints import Endpoints


def _described(pipeline: Pipeline, endpoints: Endpoints) -> list[SourceTable]:
    with check.connect(pipeline, endpoints) as connection:
        return describe(connection, pipeline)


def reconcile_database(pipeline: Pipeline, endpoints: Endpoints) -> list[str]:
    """Heartbeat, replica identities and publication. Before anything changes, all that is wrong is refused."""
    tables = check.check(pipeline, endpoints)
    with check.connect(pipeline, endpoints) as connection:
        return reconcile_source(connection, pipeline, tables)


def reconcile_messaging(pipeline: Pipeline, endpoints: Endpoints) -> list[str]:
    """Topics and subjects, then the connector."""
    return [*topics.reconcile_topics(pipeline, endpoints), *connector.reconcile_connector(pipeline, endpoints)]


def reconcile_lake(pipeline: Pipeline, endpoints: Endpoints) -> list[str]:
    """Namespace and tables."""
    return lake_tables.reconcile_tables(Lake.from_endpoints(endpoints), pipeline, _described(pipeline, endpoints))


def retire(pipeline: Pipeline, endpoints: Endpoints) -> list[str]:
    """The Flink jobs that the pipeline no longer asks for."""
    return retire_jobs(pipeline, endpoints)


def reconcile_table_jobs(pipeline: Pipeline, endpoints: Endpoints, table: str) -> list[str]:
    """The Flink jobs of one table (``schema.table``): of its mirror, of its changelog."""
    lake, kept = Lake.from_endpoints(endpoints), pipeline.tables[table]
    described = next(t for t in _described(pipeline, endpoints) if t.name == table)
    root = Path(endpoints["shudl_flink"].extra["checkpoint_dir"])
    written = [(pipeline.iceberg_table(table), False)] * kept.mirrored + [(pipeline.changelog_table(table), True)] * kept.logged
    changes: list[str] = []
    for name, changelog in written:
        uuid = str(lake.pyiceberg().load_table(name).metadata.table_uuid)
        changes += reconcile_job(TableJob(pipeline, described, uuid, root, changelog), lake, endpoints)
    return changes
