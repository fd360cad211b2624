"""The present state of every service, asked in parallel and within seconds."""

from __future__ import annotations

import os
import re
import threading
import time
import xmlrpc.client
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from include.cli.console import ME
from include.platform.catalog import BY_NAME, CONTROL_PLANE, EXTERNAL, Service
from include.platform.connections import ConnectionUnreadable, airflow_database
from include.platform.jre import LEFT_OUT
from include.platform.runtime import RuntimeUnavailable, runtime
from include.platform.settings import Settings, settings
from include.platform.supervisor import Supervisor, SupervisorError

if TYPE_CHECKING:
    from include.cli.containers import Look
    from include.platform.endpoints import Endpoints

HEALTH_DEADLINE_S = 10.0
TAIL_BYTES = 16384
TAIL_LINES = 100
PUBLIC_URL = "AIRFLOW_URL"
"""In docker: where people open Airflow, if not on localhost at the container's own port."""
ERROR = re.compile(r"\b(ERROR|FATAL|Caused by:|\w*(Exception|Error):|must be|cannot|No such)")
AIRFLOW_COMPONENTS = {
    "airflow-api-server": "metadatabase",
    "airflow-proxy": "metadatabase",
    "airflow-scheduler": "scheduler",
    "airflow-dag-processor": "dag_processor",
    "airflow-triggerer": "triggerer",
}
EXTERNALLY = "external"
_EXTERNAL = {"state": EXTERNALLY, "pid": None, "uptime_s": None, "detail": ""}
_AIRFLOW = {"state": "running", "pid": None, "uptime_s": None, "detail": ""}
STATES = {
    "stopped": "not started",
    "starting": "started, not ready yet",
    "healthy": "runs and says that it is ready",
    "unhealthy": "runs, but is not ready or does not answer; reason says why",
    "restarting": "ended by itself; is being started again",
    "paused": "its container was paused",
    "stopping": "was told to stop",
    "failed": "ended so often that the supervisor gave up",
    EXTERNALLY: "somebody else's (SHUDL_EXTERNAL), and says that it is ready",
    LEFT_OUT: "this platform is without it, and all else works; reason says why",
}
"""Every value of ``state``, and what it means."""


@dataclass(frozen=True)
class ServiceState:
    """One service now. ``url`` is empty for what people and programs do not call directly."""

    name: str
    title: str
    layer: str
    state: str
    reason: str
    url: str
    pid: int | None
    uptime_s: int

    @property
    def healthy(self) -> bool:
        return self.state in ("healthy", EXTERNALLY)

    @property
    def left_out(self) -> bool:
        return self.state == LEFT_OUT


class Parallel:
    """Calls that run in threads of their own from now on. Late ones never keep the program from ending."""

    def __init__(self, calls: dict[str, Callable[[], Any]]) -> None:
        self._results: dict[str, Any] = {}
        self._threads = {key: threading.Thread(target=self._run, args=(key, call), daemon=True) for key, call in calls.items()}
        for thread in self._threads.values():
            thread.start()

    def _run(self, key: str, call: Callable[[], Any]) -> None:
        try:
            self._results[key] = call()
        except Exception as error:
            self._results[key] = error

    def results(self, deadline_s: float) -> dict[str, Any]:
        """What each call returned, or the exception that it raised; a TimeoutError for those that are late."""
        deadline = time.monotonic() + deadline_s
        for thread in self._threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        late = TimeoutError(f"no answer within {deadline_s:g} s")
        return {key: self._results.get(key, late) for key in self._threads}


def airflow_url(s: Settings = settings) -> str:
    """Where people open Airflow."""
    return (os.environ.get(PUBLIC_URL) or f"https://localhost:{s.port('airflow')}") if s.docker else s.url("airflow")


def service_url(svc: Service, endpoints: Endpoints, s: Settings = settings) -> str:
    """Where ``svc`` is reached, without a password. In docker from the host, if its port is published; else by containers."""
    if svc.name == "airflow-db":
        host, port = s.address(svc.port)
        return f"postgresql://airflow@{host}:{port}/airflow"
    if svc.name in ("flink-taskmanager", "spark-worker", "valkey") or not svc.port:
        return ""
    if svc in CONTROL_PLANE:
        return airflow_url(s)
    try:
        url = _own_url(svc, endpoints, s)
    except ConnectionUnreadable:
        return ""
    if svc.name in EXTERNAL:
        return url
    return on_host(url, _look().published(svc.name)) if s.docker else url


def on_host(url: str, published: Mapping[int, int]) -> str:
    """``url`` with localhost for its host, and the published port for its own; as it is when its port is not published.

    The addresses of several, with commas, are left alone: none of several is published.
    """
    if "," in url:
        return url
    address = urlsplit(url if "//" in url else f"//{url}")
    if address.port not in published:
        return url
    return url.replace(f"{address.hostname}:{address.port}", f"localhost:{published[address.port]}", 1)


def _own_url(svc: Service, endpoints: Endpoints, s: Settings) -> str:
    from include.platform.catalog import CONN_IDS

    endpoint = endpoints[CONN_IDS[svc.name]]
    if endpoint.conn_type == "spark":
        return endpoint.extra.get("web_ui", "")
    if endpoint.conn_type == "postgres":
        return f"postgresql://{endpoint.login}@{endpoint.address}/{endpoint.schema}"
    return endpoint.address if endpoint.conn_type == "kafka" else endpoint.url


def _airflow_db_healthy(s: Settings) -> None:
    import psycopg

    with psycopg.connect(**airflow_database(s)) as connection:
        connection.execute("SELECT 1")


def _airflow_health(s: Settings) -> dict[str, str | None]:
    from include.platform.airflow import AirflowClient

    with AirflowClient(s) as airflow:
        return airflow.health()


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def reasons(
    names: Iterable[str], endpoints: Endpoints, s: Settings = settings, deadline_s: float = HEALTH_DEADLINE_S
) -> dict[str, str]:
    """Why each of the services ``names`` is not healthy, in one line; empty for a healthy one."""
    from include.platform import workers
    from include.platform.checks import healthy

    names = list(names)
    airflows = {"airflow-db": _airflow_db_healthy, "valkey": workers.queue_healthy, "airflow-worker": workers.workers_healthy}
    calls: dict[str, Callable[[], Any]] = {}
    for name in names:
        if name in airflows:
            calls[name] = lambda ask=airflows[name]: ask(s)
        elif name in AIRFLOW_COMPONENTS:
            calls["airflow"] = lambda: _airflow_health(s)
        else:
            calls[name] = lambda name=name: healthy(name, endpoints)
    answers = Parallel(calls).results(deadline_s)
    found = {}
    for name in names:
        answer = answers["airflow" if name in AIRFLOW_COMPONENTS else name]
        if isinstance(answer, Exception):
            found[name] = _first_line(answer)
        elif name in AIRFLOW_COMPONENTS:
            found[name] = _component_reason(name, answer)
        else:
            found[name] = ""
    return found


def _component_reason(name: str, health: dict[str, str | None]) -> str:
    if not health:
        return "Airflow's API server does not answer"
    status = health.get(AIRFLOW_COMPONENTS[name])
    return "" if status == "healthy" else f"Airflow says: {status or 'never seen'}"


@cache
def _look() -> Look:
    from include.cli.containers import Look

    return Look()


def left_out(name: str, s: Settings = settings) -> str:
    """Why the platform is without a service; empty for one that it has."""
    return "" if name in EXTERNAL else runtime(s).left_out(name)


def how_to_look(name: str, s: Settings = settings) -> str:
    """The command that shows a service's own words."""
    if name in EXTERNAL:
        return f"its own operators, or connection {EXTERNAL[name]} in Airflow"
    return runtime(s).how_to_look(name)


def seen(name: str, s: Settings = settings) -> dict[str, Any]:
    """``{state, pid, uptime_s, detail}`` of a service, as the runtime sees it.

    Docker is not asked of Airflow itself, which nobody may touch through docker-filter: it counts as running, and is as
    healthy as it says. Its ``uptime_s`` is None, and so is that of an external service, which no runtime is asked of.
    """
    if name in EXTERNAL:
        return _EXTERNAL
    if s.docker:
        return _AIRFLOW if BY_NAME[name] in CONTROL_PLANE else _look().info(name)
    try:
        return Supervisor(s).info(name)
    except xmlrpc.client.Fault:
        detail = f"the running supervisord does not know it; {ME} up tells it"
    except SupervisorError as error:
        detail = str(error)
    return {"state": "stopped", "pid": None, "uptime_s": 0, "detail": detail}


def _tail(name: str, s: Settings) -> str:
    """The end of a service's log; empty when there is none."""
    if name in EXTERNAL:
        return ""
    if s.docker:
        from docker.errors import NotFound

        try:
            return "" if BY_NAME[name] in CONTROL_PLANE else "\n".join(_look().logs(name, TAIL_LINES).values())
        except (NotFound, RuntimeUnavailable):
            return ""
    try:
        with open(s.logs / f"{name}.log", "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def last_words(name: str, s: Settings = settings, error: bool = True) -> str:
    """The last line of a service's log; with ``error`` the last that tells of one, where there is such a line."""
    lines = [line.strip() for line in _tail(name, s).splitlines()]
    lines = [line for line in lines if line and not line.startswith(("at ", "... "))]
    errors = [line for line in lines if ERROR.search(line)] if error else []
    return (errors or lines or [""])[-1][:300]


def survey(
    names: Iterable[str] = tuple(BY_NAME), s: Settings = settings, deadline_s: float = HEALTH_DEADLINE_S
) -> list[ServiceState]:
    """The state of the services ``names``. Never raises for one that is ill."""
    from include.platform.endpoints import local_endpoints

    endpoints = local_endpoints(s)
    infos = {name: seen(name, s) for name in names}
    ill = reasons([name for name, info in infos.items() if info["state"] in ("running", EXTERNALLY)], endpoints, s, deadline_s)
    found = []
    for name, info in infos.items():
        svc, state, reason = BY_NAME[name], info["state"], ""
        if state == "running":
            reason = ill[name]
            young = info["uptime_s"] is not None and info["uptime_s"] < svc.start_timeout_s
            state = "healthy" if not reason else "starting" if young else "unhealthy"
        elif state == EXTERNALLY:
            reason = ill[name]
            state = "unhealthy" if reason else state
        elif state in ("failed", "restarting"):
            reason = info.get("killed") or last_words(name, s) or info["detail"]
        elif state == "stopped" and (reason := left_out(name, s)):
            state = LEFT_OUT
        found.append(
            ServiceState(
                name, svc.title, svc.layer, state, reason, service_url(svc, endpoints, s), info["pid"], int(info["uptime_s"] or 0)
            )
        )
    return found
