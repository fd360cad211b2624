"""A small file that is put into the landing bucket: seconds until Trino shows its rows, from the put and from the DAG's start.

The first file makes the table, and those after it, one at a time, are added to it. The bucket's watcher starts each run.
"""

from __future__ import annotations

import io
import time
import uuid
from datetime import datetime
from typing import Any

from trino.exceptions import TrinoUserError

from benchmarks.machine import show, spread
from include.ingest.landing import put
from include.platform import trino
from include.platform.airflow import AirflowClient
from include.platform.endpoints import local_endpoints

FILES, ROWS = 6, 1000
WAIT_S = 300
DAG = "ingest_landing"


def measure() -> dict[str, Any]:
    """``{rows, new_table, added: {put_s, start_s}}``; ``start_s`` counts from the run's start, as Airflow has it."""
    endpoints, folder = local_endpoints(), f"benchmark_small_{uuid.uuid4().hex[:8]}"
    content = b"id,name,flown\n" + b"".join(b"%d,flight %d,2013-01-%02d\n" % (n, n, n % 28 + 1) for n in range(ROWS))
    seen: list[dict[str, float]] = []
    with AirflowClient() as airflow, trino.connect(endpoints, "lake") as connection:
        airflow.unpause(DAG)
        for number in range(FILES):
            since = time.time()
            put(endpoints, folder, f"{number}.csv", io.BytesIO(content))
            shown = _shown(connection, folder, (number + 1) * ROWS)
            run = airflow.latest_run(DAG)
            started = datetime.fromisoformat(run["start_date"]).timestamp()
            if started < since:
                raise RuntimeError(f"the run that loaded {number}.csv had begun before: {run['dag_run_id']}")
            seen.append({"put_s": shown - since, "start_s": shown - started})
            airflow.wait(DAG, run["dag_run_id"], WAIT_S)
    first, *added = seen
    names = {"put_s": "from the put", "start_s": "from the DAG's start"}
    figures = {
        "rows": ROWS,
        "new_table": {name: round(first[name], 2) for name in names},
        "added": {name: spread([one[name] for one in added]) for name in names},
    }
    lines = [(text, figures["new_table"][name], *figures["added"][name].values()) for name, text in names.items()]
    show(
        f"A file of {ROWS:,} rows until Trino shows them, seconds",
        lines,
        ("", "new table", "added: min", "median", "max"),
    )
    return figures


def _shown(connection: Any, folder: str, rows: int) -> float:
    """When Trino showed ``rows`` rows."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        cursor = connection.cursor()
        try:
            cursor.execute(f"SELECT count(*) FROM raw.{folder}")
            if cursor.fetchone() == [rows]:
                return time.time()
        except TrinoUserError as error:
            if error.error_name not in ("TABLE_NOT_FOUND", "SCHEMA_NOT_FOUND"):
                raise
        time.sleep(0.1)
    raise RuntimeError(f"raw.{folder} does not have {rows} rows after {WAIT_S} s")
