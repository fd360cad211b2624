"""The present state of every service, asked in parallel and within seconds."""

from __future__ import annotations

import re
import threading
import time
import xmlrpc.client
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.platform.catalog import BY_NAME, CONTROL_PLANE, Service
from include.platform.jre import LEFT_OUT, left_out
from include.platform.settings import Settings, settings
from include.platform.supervisor import Supervisor, SupervisorError

if TYPE_CHECKING:
    from include.platform.endpoints import Endpoints

HEALTH_DEADLINE_S = 10.0
TAIL_BYTES = 16384
ERROR = re.compile(r"\b(ERROR|FATAL|Caused by:|\w*(Exception|Error):|must be|cannot|No such)")
AIRFLOW_COMPONENTS = {
    "airflow-api-server": "metadatabase",
    "airflow-scheduler": "scheduler",
    "airflow-dag-processor": "dag_processor",
    "airflow-triggerer": "triggerer",
}
STATES = {
    "stopped": "not started",
    "starting": "started, not ready yet",
    "healthy": "runs and says that it is ready",
    "unhealthy": "runs, but is not ready or does not answer; reason says why",
    "restarting": "ended by itself; is being started again",
    "stopping": "was told to stop",
    "failed": "ended so often that the supervisor gave up",
    LEFT_OUT: "this machine cannot run it, and all else works without; reason says why",
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
        return self.state == "healthy"

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


def service_url(svc: Service, endpoints: Endpoints, s: Settings = settings) -> str:
    """Where ``svc`` is reached, without a password."""
    from include.platform.catalog import CONN_IDS

    if svc.name == "airflow-db":
        return f"postgresql://airflow@{s.host}:{s.port(svc.port)}/airflow"
    if svc.name in ("flink-taskmanager", "spark-worker") or not svc.port:
        return ""
    if svc in CONTROL_PLANE:
        return s.url(svc.port)
    endpoint = endpoints[CONN_IDS[svc.name]]
    if endpoint.conn_type == "spark":
        return s.url("spark_ui")
    if endpoint.conn_type == "postgres":
        return f"postgresql://{endpoint.login}@{endpoint.address}/{endpoint.schema}"
    return endpoint.address if endpoint.conn_type == "kafka" else endpoint.url


def _airflow_db_healthy(s: Settings) -> None:
    import psycopg

    with psycopg.connect(
        host=s.host,
        port=s.port("airflow_db"),
        user="airflow",
        password=s.secret("airflow_db_airflow"),
        dbname="airflow",
        connect_timeout=3,
    ) as connection:
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
    from include.platform.checks import healthy

    names = list(names)
    calls: dict[str, Callable[[], Any]] = {}
    for name in names:
        if name == "airflow-db":
            calls[name] = lambda: _airflow_db_healthy(s)
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


def supervised(name: str, supervisor: Supervisor) -> dict[str, Any]:
    """What supervisord says of a service; ``stopped`` with the reason when it says nothing."""
    try:
        return supervisor.info(name)
    except xmlrpc.client.Fault:
        detail = "the running supervisord does not know it; ./shudl up tells it"
    except SupervisorError as error:
        detail = str(error)
    return {"state": "stopped", "pid": None, "uptime_s": 0, "detail": detail}


def last_words(name: str, s: Settings = settings, error: bool = True) -> str:
    """The last line of a service's log; with ``error`` the last that tells of one, where there is such a line."""
    try:
        with open(s.logs / f"{name}.log", "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    except OSError:
        return ""
    lines = [line for line in lines if line and not line.startswith(("at ", "... "))]
    errors = [line for line in lines if ERROR.search(line)] if error else []
    return (errors or lines or [""])[-1][:300]


def survey(
    names: Iterable[str] = tuple(BY_NAME), s: Settings = settings, deadline_s: float = HEALTH_DEADLINE_S
) -> list[ServiceState]:
    """The state of the services ``names``. Never raises for one that is ill."""
    from include.platform.endpoints import local_endpoints

    supervisor, endpoints = Supervisor(s), local_endpoints(s)
    infos = {name: supervised(name, supervisor) for name in names}
    ill = reasons([name for name, info in infos.items() if info["state"] == "running"], endpoints, s, deadline_s)
    found = []
    for name, info in infos.items():
        svc, state, reason = BY_NAME[name], info["state"], ""
        if state == "running":
            reason = ill[name]
            state = "healthy" if not reason else "starting" if info["uptime_s"] < svc.start_timeout_s else "unhealthy"
        elif state in ("failed", "restarting"):
            reason = last_words(name, s) or info["detail"]
        elif state == "stopped" and (reason := left_out(name, s)):
            state = LEFT_OUT
        found.append(
            ServiceState(
                name, svc.title, svc.layer, state, reason, service_url(svc, endpoints, s), info["pid"], int(info["uptime_s"])
            )
        )
    return found
