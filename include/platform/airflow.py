"""Airflow's REST API, as far as the command line and the tests need it.

    with AirflowClient() as airflow:
        run_id = airflow.trigger("platform_bootstrap")
        state = airflow.wait("platform_bootstrap", run_id, timeout_s=300, on_change=show)

Signs in as the admin user whose password is in ``settings.secret_file("airflow_admin")``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

import httpx

from include.platform.endpoints import Endpoint
from include.platform.settings import Settings, settings

ADMIN = "admin"
COMPONENTS = ("metadatabase", "scheduler", "dag_processor", "triggerer")
FINAL_STATES = ("success", "failed")
PAGE = 100
AWAY = (502, 503, 504)
"""What a proxy answers for a server that does not."""

OnChange = Callable[[dict[str, Any], list[dict[str, Any]]], None]
"""Called with the run and its task instances."""


class AirflowError(RuntimeError):
    """Airflow cannot be reached, refused a request or did not finish in time; the text says what to do."""


class AirflowUnreachable(AirflowError):
    """Nothing answers, or not in time."""


class AirflowClient:
    """A session with one Airflow. Every method raises :class:`AirflowError`; none retries for long."""

    def __init__(self, s: Settings = settings, timeout_s: float = 15) -> None:
        self.settings = s
        self.url = s.url("airflow")
        # No proxy of the environment's, and yet the authority that it names (SSL_CERT_FILE).
        self._http = httpx.Client(base_url=self.url, timeout=timeout_s, trust_env=False, verify=httpx.create_ssl_context())

    def __enter__(self) -> AirflowClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def _send(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **kwargs)
        except httpx.TransportError as error:
            reason = f"Airflow does not answer at {self.url} ({str(error) or type(error).__name__}); start it with ./shudl up"
            raise AirflowUnreachable(reason) from None

    def _sign_in(self) -> None:
        answer = self._send("POST", "/auth/token", json={"username": ADMIN, "password": self.settings.secret("airflow_admin")})
        if answer.status_code in AWAY:
            raise AirflowUnreachable(f"no API server of Airflow's answers at {self.url} (HTTP {answer.status_code})")
        if answer.status_code != 201:
            refusal = f"Airflow at {self.url} refuses user {ADMIN}: {_detail(answer)}"
            raise AirflowError(f"{refusal}; see ./shudl logs airflow-api-server")
        self._http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def request(self, method: str, path: str, **kwargs: Any) -> Any:
        """The JSON that ``/api/v2<path>`` answers. Signs in when needed."""
        for attempt in (1, 2):
            if "Authorization" not in self._http.headers:
                self._sign_in()
            answer = self._send(method, f"/api/v2{path}", **kwargs)
            if answer.status_code == 401 and attempt == 1:
                del self._http.headers["Authorization"]
                continue
            break
        if answer.status_code in AWAY:
            raise AirflowUnreachable(f"no API server of Airflow's answers at {self.url} (HTTP {answer.status_code})")
        if answer.is_error:
            raise AirflowError(f"Airflow: {method} {path} answered {answer.status_code}: {_detail(answer)}")
        return answer.json() if answer.content else None

    def _pages(self, path: str, key: str, **params: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = self.request("GET", path, params={**params, "limit": PAGE, "offset": len(found)})
            found += page[key]
            if not page[key] or len(found) >= page["total_entries"]:
                return found

    def health(self) -> dict[str, str | None]:
        """``healthy``, ``unhealthy`` or None for each of :data:`COMPONENTS`; empty when nothing answers."""
        try:
            answer = self._http.get("/api/v2/monitor/health", timeout=10)
            return {name: (answer.json().get(name) or {}).get("status") for name in COMPONENTS}
        except (httpx.TransportError, ValueError):
            return {}

    def healthy(self) -> bool:
        """Whether the API answers and the database, scheduler, DAG processor and triggerer live."""
        health = self.health()
        return bool(health) and all(status == "healthy" for status in health.values())

    def dags(self) -> list[dict[str, Any]]:
        """Every DAG that Airflow knows (``dag_id``, ``is_paused``, ``has_import_errors``, …)."""
        return self._pages("/dags", "dags", order_by="dag_id", exclude_stale=True)

    def import_errors(self) -> list[dict[str, Any]]:
        """``{filename, stack_trace, …}`` of every DAG file that cannot be read."""
        return self._pages("/importErrors", "import_errors")

    def wait_for_dags(self, dag_ids: set[str], timeout_s: float = 60) -> None:
        """Until Airflow has read these DAGs. A file of theirs that cannot be read ends the wait with its error."""
        deadline = time.monotonic() + timeout_s
        while missing := dag_ids - {dag["dag_id"] for dag in self.dags()}:
            if errors := [error for error in self.import_errors() if may_define(error["filename"], missing)]:
                raise AirflowError("\n".join(f"{e['filename']}: {e['stack_trace']}" for e in errors))
            if time.monotonic() > deadline:
                names = ", ".join(sorted(missing))
                raise AirflowError(
                    f"Airflow has not read {names} within {timeout_s:.0f} s; see ./shudl logs airflow-dag-processor"
                )
            time.sleep(0.5)

    def has_connection(self, conn_id: str) -> bool:
        return conn_id in {connection["connection_id"] for connection in self._pages("/connections", "connections")}

    def set_connection(self, endpoint: Endpoint) -> None:
        """Make the connection, or give it the endpoint's fields."""
        body = {
            "connection_id": endpoint.conn_id,
            "conn_type": endpoint.conn_type,
            "host": endpoint.host,
            "port": endpoint.port,
            "login": endpoint.login,
            "password": endpoint.password,
            "schema": endpoint.schema,
            "extra": json.dumps(dict(endpoint.extra)) if endpoint.extra else None,
        }
        if self.has_connection(endpoint.conn_id):
            self.request("PATCH", f"/connections/{quote(endpoint.conn_id, safe='')}", json=body)
        else:
            self.request("POST", "/connections", json=body)

    def delete_connection(self, conn_id: str) -> None:
        if self.has_connection(conn_id):
            self.request("DELETE", f"/connections/{quote(conn_id, safe='')}")

    def unpause(self, dag_id: str) -> None:
        self._pause(dag_id, False)

    def pause(self, dag_id: str) -> None:
        self._pause(dag_id, True)

    def _pause(self, dag_id: str, paused: bool) -> None:
        self.request("PATCH", f"/dags/{quote(dag_id)}", params={"update_mask": "is_paused"}, json={"is_paused": paused})

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None, run_id: str | None = None) -> str:
        """Start a run; the run id. A ``run_id`` that exists already is an error (409)."""
        body = {"logical_date": None, "conf": conf or {}} | ({"dag_run_id": run_id} if run_id else {})
        return self.request("POST", f"/dags/{quote(dag_id)}/dagRuns", json=body)["dag_run_id"]

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """``{dag_run_id, state, start_date, end_date, conf, …}``."""
        return self.request("GET", _run_path(dag_id, run_id))

    def runs(self, dag_id: str, limit: int = 10) -> list[dict[str, Any]]:
        """The newest runs of a DAG, newest first."""
        params = {"order_by": "-run_after", "limit": limit}
        return self.request("GET", f"/dags/{quote(dag_id)}/dagRuns", params=params)["dag_runs"]

    def latest_run(self, dag_id: str) -> dict[str, Any] | None:
        return next(iter(self.runs(dag_id, 1)), None)

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """``{task_id, map_index, state, try_number, duration, …}`` of each task of a run."""
        return self._pages(f"{_run_path(dag_id, run_id)}/taskInstances", "task_instances", order_by="id")

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        """What one try of a task logged: a line an event, a failure with its kind and text."""
        log = self._log(dag_id, run_id, task_id, try_number, map_index)
        return "\n".join(line for event in log for line in _log_lines(event))

    def _log(self, dag_id: str, run_id: str, task_id: str, try_number: int, map_index: int) -> list[dict[str, Any] | str]:
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{quote(task_id)}/logs/{try_number}"
        params = {"full_content": True, "map_index": map_index}
        return self.request("GET", path, params=params, headers={"Accept": "application/json"})["content"]

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """A value that a task returned."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{quote(task_id)}/xcomEntries/{quote(key)}"
        return self.request("GET", path, params={"deserialize": True})["value"]

    def wait(self, dag_id: str, run_id: str, timeout_s: float, on_change: OnChange | None = None, poll_s: float = 0.7) -> str:
        """The final state of a run (``success`` or ``failed``). ``on_change`` hears of each change of a state.

        An API server that is busy or restarts is waited for, too.
        """
        deadline = time.monotonic() + timeout_s
        seen: object = None
        state = "unknown"
        while True:
            try:
                run = self.run(dag_id, run_id)
                tasks = self.task_instances(dag_id, run_id) if on_change else []
            except AirflowUnreachable:
                if time.monotonic() > deadline:
                    raise
            else:
                state = run["state"]
                now = (state, [(t["id"], t["state"], t["try_number"]) for t in tasks])
                if on_change and now != seen:
                    seen = now
                    on_change(run, tasks)
                if state in FINAL_STATES:
                    return state
                if time.monotonic() > deadline:
                    still = f"{dag_id}: run {run_id} is still {state} after {timeout_s:.0f} s"
                    raise AirflowError(f"{still}; see {self.run_url(dag_id, run_id)}")
            time.sleep(poll_s)

    def failures(self, dag_id: str, run_id: str) -> dict[str, str]:
        """For each task of a run that failed (not those that only follow one): the last error in its log, without its causes."""
        found = {}
        for t in self.task_instances(dag_id, run_id):
            if t["state"] == "failed":
                log = self._log(dag_id, run_id, t["task_id"], t["try_number"], t["map_index"])
                errors = [event for event in log if isinstance(event, dict) and event.get("level") in ("error", "critical")]
                found[t["task_id"]] = _log_lines(errors[-1])[:2][-1] if errors else "no error in its log"
        return found

    def run_url(self, dag_id: str, run_id: str) -> str:
        """Where a person sees the run."""
        return f"{self.url}/dags/{quote(dag_id)}/runs/{quote(run_id)}"


def may_define(filename: str, dag_ids: set[str]) -> bool:
    """Whether a file may define one of the DAGs: it is called ``<dag_id>.py``, or ``<kind>.py`` for ``<kind>_<source>``."""
    stem = PurePath(filename).stem
    return any(dag_id == stem or dag_id.startswith(f"{stem}_") for dag_id in dag_ids)


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id, safe='')}"


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json().get("detail"))
    except (ValueError, AttributeError):
        return answer.text[:300]


def _log_lines(event: dict[str, Any] | str) -> list[str]:
    if isinstance(event, str):
        return [event]
    lines = [event.get("event", "")]
    for error in event.get("error_detail") or ():
        lines.append(f"{error.get('exc_type')}: {error.get('exc_value')}")
    return lines
