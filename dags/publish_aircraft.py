"""Build the mart of the aircraft files that were landed, and serve it from ClickHouse."""

from __future__ import annotations

from airflow.sdk import DAG

from shudl.assets import lake_table
from shudl.publishing import build_and_serve
from shudl.tags import Tag

DOC = """
### Transform and publish what files tell of aircraft

Runs when `ingest_landing` has given rows to `raw.aircraft` (docs/landing.md): no timetable. The steps are those of
`publish_flights`, for the models with the tag `aircraft`; the mart joins the files with the flights, as `publish_flights` built
them last. The branch `published` stays where `publish_flights` put it.

**When it fails.** A table that is missing: run `publish_flights`, or put a file into the folder `aircraft` of the landing bucket.
A red model or test: the log of its group's `dbt_producer_watcher` has dbt's own words; what ClickHouse serves is untouched.
Trigger the DAG again: it starts anew.
"""

with DAG(
    "publish_aircraft",
    description="Build and serve the mart of the aircraft files, when they have come",
    schedule=[lake_table("raw.aircraft")],
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    tags=[Tag.TRANSFORM],
    doc_md=DOC,
) as dag:
    build_and_serve("aircraft")
