"""The steps of a pipeline's reconciliation, as the DAG ``cdc_<source>`` calls them.

Each step makes the world match the pipeline file, does nothing when it already does, and returns what it changed.
"""

from __future__ import annotations

from pathlib import Path

import psycopg

from include.cdc import connector, topics
from include.cdc import tables as lake_tables
from include.cdc.jobs import TableJob, reconcile_job
from include.cdc.pipelines import Pipeline
from include.cdc.source import SourceTable, describe, reconcile_source
from include.lake.catalog import Lake
from include.platform.endpoints import Endpoints


def _described(pipeline: Pipeline, endpoints: Endpoints) -> list[SourceTable]:
    with psycopg.connect(endpoints[pipeline.connection].conninfo, autocommit=True) as connection:
        return describe(connection, pipeline)


def reconcile_database(pipeline: Pipeline, endpoints: Endpoints) -> list[str]:
    """Check every table, then heartbeat, replica identities, publication and slot."""
    with psycopg.connect(endpoints[pipeline.connection].conninfo, autocommit=True) as connection:
        return reconcile_source(connection, pipeline, describe(connection, pipeline))


def reconcile_messaging(pipeline: Pipeline, endpoints: Endpoints) -> list[str]:
    """Topics and subjects, then the connector."""
    changes = topics.reconcile_topics(pipeline, endpoints)
    return [*changes, *connector.reconcile_connector(pipeline, _described(pipeline, endpoints), endpoints)]


def reconcile_lake(pipeline: Pipeline, endpoints: Endpoints) -> list[str]:
    """Namespace and tables."""
    return lake_tables.reconcile_tables(Lake.from_endpoints(endpoints), pipeline, _described(pipeline, endpoints))


def reconcile_table_job(pipeline: Pipeline, endpoints: Endpoints, table: str) -> list[str]:
    """The Flink job of one table (``schema.table``)."""
    lake = Lake.from_endpoints(endpoints)
    described = next(t for t in _described(pipeline, endpoints) if t.name == table)
    uuid = lake.pyiceberg().load_table(pipeline.iceberg_table(table)).metadata.table_uuid
    root = Path(endpoints["shudl_flink"].extra["checkpoint_dir"])
    return reconcile_job(TableJob(pipeline, described, str(uuid), root), lake, endpoints)
