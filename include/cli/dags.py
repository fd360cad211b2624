"""Runs of DAGs, followed from the command line."""

from __future__ import annotations

import time
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from include.cli.console import Board, CliError, seconds
from include.cli.state import airflow_url
from include.platform.airflow import AirflowClient, OnChange

UNDER_WAY = ("queued", "running")
LEAST_WAIT_S = 10.0
OWN_RUN_S = 8.0
"""How long after it is unpaused a DAG with a schedule may take to start a run."""
ENDED = ("success", "failed", "skipped", "upstream_failed", "removed")
ACTIVE = ("running", "deferred", "up_for_retry", "restarting")


class RunFailed(CliError):
    """A run ended badly. ``problems``: the last line of the log of each task that failed, by task id."""

    def __init__(self, dag_id: str, problems: dict[str, str], url: str) -> None:
        lines = [f"  {task_id}: {reason}".replace("\n", "\n    ") for task_id, reason in problems.items()]
        super().__init__("\n".join([f"{dag_id} failed:", *lines, f"All logs: {url}"]))
        self.problems, self.url = problems, url


def follow(airflow: AirflowClient, dag_id: str, deadline: float, on_change: OnChange, conf: dict[str, Any] | None = None) -> str:
    """Run a DAG until it ends; the run id. ``deadline`` is a ``time.monotonic()``. Raises :class:`RunFailed`.

    A run that is under way is joined first, whatever its ``conf``; if it fails, perhaps of a cause that is
    mended by now, a new one is started.
    """
    airflow.wait_for_dags({dag_id}, timeout_s=max(LEAST_WAIT_S, deadline - time.monotonic()))
    if run_id := _under_way(airflow, dag_id):
        try:
            return _until_end(airflow, dag_id, run_id, deadline, on_change)
        except RunFailed:
            pass
    return _until_end(airflow, dag_id, airflow.trigger(dag_id, conf), deadline, on_change)


def _under_way(airflow: AirflowClient, dag_id: str) -> str | None:
    """The id of the run that is under way. A paused DAG is unpaused: one with a schedule then starts a run by itself."""
    dag = next(dag for dag in airflow.dags() if dag["dag_id"] == dag_id)
    until = time.monotonic()
    if dag["is_paused"]:
        airflow.unpause(dag_id)
        until += OWN_RUN_S if dag["timetable_summary"] else 0
    while True:
        latest = airflow.latest_run(dag_id)
        if latest and latest["state"] in UNDER_WAY:
            return latest["dag_run_id"]
        if time.monotonic() >= until:
            return None
        time.sleep(0.5)


def _until_end(airflow: AirflowClient, dag_id: str, run_id: str, deadline: float, on_change: OnChange) -> str:
    state = airflow.wait(dag_id, run_id, max(LEAST_WAIT_S, deadline - time.monotonic()), on_change)
    if state != "success":
        raise RunFailed(dag_id, airflow.failures(dag_id, run_id), run_url(airflow, dag_id, run_id))
    return run_id


def run_url(airflow: AirflowClient, dag_id: str, run_id: str) -> str:
    """Where a person sees the run."""
    return airflow.run_url(dag_id, run_id).replace(airflow.url, airflow_url(airflow.settings), 1)


def span(tasks: list[dict[str, Any]]) -> float | None:
    """Seconds from the first start to the last end of tasks."""
    times = [datetime.fromisoformat(task[key]) for task in tasks for key in ("start_date", "end_date") if task.get(key)]
    return (max(times) - min(times)).total_seconds() if times else None


class RunBoard:
    """The tasks of one run: how many are done and what runs. Give :meth:`show` to :func:`follow`."""

    def __init__(self, dag_id: str) -> None:
        self.dag_id = dag_id
        self._tasks: list[dict[str, Any]] = []
        self._states: dict[str, str | None] = {}
        self._spinner = Spinner("dots", style="yellow")
        self._board = Board(self._draw)

    def __enter__(self) -> Self:
        self._board.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._board.__exit__(kind, error, trace)

    def show(self, run: dict[str, Any], tasks: list[dict[str, Any]]) -> None:
        """Take over the present states."""
        self._tasks = tasks
        for task in tasks:
            name, state = _name(task), task["state"]
            if state != self._states.get(name) and state in (*ENDED, "running"):
                took = f" after {seconds(task['duration'])}" if state in ENDED and task.get("duration") else ""
                self._board.changed(f"{self.dag_id:<20}{name:<44}{state}{took}")
            self._states[name] = state

    def _draw(self) -> Table:
        done = sum(task["state"] in ENDED for task in self._tasks)
        active = [_name(task) for task in self._tasks if task["state"] in ACTIVE]
        bad = [_name(task) for task in self._tasks if task["state"] == "failed"]
        table = Table.grid(padding=(0, 1), expand=True)
        for ratio in (None, None, None, None, 1):
            table.add_column(no_wrap=True, overflow="ellipsis", ratio=ratio)
        mark = (
            Text("✗", style="red")
            if bad
            else Text("✓", style="green")
            if self._tasks and done == len(self._tasks)
            else self._spinner
        )
        text = Text(", ".join(bad or active), style="red" if bad else "dim")
        table.add_row(
            mark, Text(self.dag_id, style="bold"), f"{done} of {len(self._tasks)} tasks", seconds(self._board.elapsed), text
        )
        return table


def _name(task: dict[str, Any]) -> str:
    mapped = task.get("map_index", -1)
    return task["task_id"] if mapped < 0 else f"{task['task_id']}[{mapped}]"
