"""Replay the days that were not loaded as live traffic on the demo's database."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param, task

from shudl.tags import Tag

DOC = """
### Replay the flights as live traffic

Flights are inserted when scheduled, updated at departure and at arrival, deleted when they never left, in the order
of time, `rate` changes a second. The position is kept in the source database with the changes themselves: a replay that
is stopped or killed goes on where it was. One replay runs at a time.

**When it fails.** The log's last line tells the position; trigger the DAG again to go on.
"""

with DAG(
    "demo_replay",
    description="Live traffic: the flights of the days after those loaded",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    tags=[Tag.DEMO],
    doc_md=DOC,
    params={
        "rate": Param(200, type="number", minimum=0, description="Changes a second; 0 is as fast as possible"),
        "until": Param(None, type=["null", "string"], format="date", description="Last day to replay; empty for all"),
        "max_events": Param(None, type=["null", "integer"], minimum=1, description="Stop after so many changes"),
    },
) as dag:

    @task(retries=5, retry_delay=timedelta(seconds=5))
    def replay(params: dict) -> dict:
        import logging
        from datetime import date
        from itertools import count

        from include.demo import flights
        from shudl.endpoints import endpoints

        log = logging.getLogger("airflow.task")
        calls = count()
        report = flights.replay(
            endpoints()["flights_db"].conninfo,
            rate=params["rate"],
            until=date.fromisoformat(params["until"]) if params["until"] else None,
            max_events=params["max_events"],
            progress=lambda p: (
                next(calls) % 20 or log.info("%s: change %d of %d", p.virtual_time, p.event_number, p.total_events)
            ),
        )
        return {
            "ended": report.ended,
            "events": report.events,
            "virtual_time": str(report.virtual_time),
            "rate": round(report.rate, 1),
        }

    replay()
