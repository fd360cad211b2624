"""Build the marts in the lake, then put them and what a pipeline serves into ClickHouse, all at once."""

from __future__ import annotations

from airflow.sdk import DAG

from shudl.publishing import build_and_serve
from shudl.tags import Tag

DOC = """
### Transform and publish the flights

| task | what it does |
| --- | --- |
| `marts.*` | `dbt build` on Trino: the marts as Iceberg tables in `lake.marts`, and their tests |
| `pin` | takes the newest commit of the lake's branch `main`, and where each table that is served is at it |
| `serving.*` | `dbt build` on ClickHouse: copies of these tables as they are at that commit, beside those served now |
| `publish` | exchanges the copies with the tables in `serving`, and moves the branch `published` to the commit |

In each group `dbt_producer_watcher` runs dbt, tests included; the other tasks show what becomes of each model.
`serving._published` tells the commit that each table of ClickHouse was copied from; in Trino the catalog `published`
shows the lake at it. Readers of ClickHouse see the old tables until the new ones are whole and tested.

**When it fails.** A red model or test: the log of its group's `dbt_producer_watcher` has dbt's own words; what ClickHouse
serves is untouched. Mend it, then trigger the DAG again: it starts anew and leaves nothing behind.
"""

with DAG(
    "publish_flights",
    description="Build the marts, test them, and serve them from ClickHouse",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    tags=[Tag.TRANSFORM],
    doc_md=DOC,
) as dag:
    build_and_serve()
