"""Load the demo's database: the flights that left New York in 2013, up to a chosen day."""

from __future__ import annotations

from airflow.sdk import DAG, Param, task

from shudl.tags import Tag

DOC = """
### Load the demo's database

Makes the tables in the source database and loads everything before `from_day` by COPY, in one transaction.
Loaded already: does nothing. Loaded with another day: fails unless `reset` is set, which empties the tables first.
`demo_replay` then replays the days that follow as live traffic.
"""

with DAG(
    "demo_load",
    description="Load the flights of 2013 up to a chosen day",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    tags=[Tag.DEMO],
    doc_md=DOC,
    params={
        "from_day": Param("2013-12-01", type="string", format="date", description="First day that is replayed instead of loaded"),
        "reset": Param(False, type="boolean", description="Empty the tables first"),
    },
) as dag:

    @task
    def load(params: dict) -> dict:
        import dataclasses
        from datetime import date

        from include.demo import flights
        from shudl.endpoints import endpoints

        report = flights.load(endpoints()["flights_db"].conninfo, date.fromisoformat(params["from_day"]), reset=params["reset"])
        return {key: str(value) if isinstance(value, date) else value for key, value in dataclasses.asdict(report).items()}

    load()
