"""``up`` and ``down``: the platform as a whole."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any
from urllib.parse import quote

import psutil

from include.cli.board import ServiceBoard
from include.cli.console import ME, CliError, is_live, next_steps, out, say, seconds
from include.cli.dags import UNDER_WAY, RunFailed, follow, span
from include.cli.state import Parallel, airflow_url, how_to_look, last_words, left_out, reasons, seen, service_url, survey
from include.platform.airflow import ADMIN, AirflowClient, AirflowUnreachable
from include.platform.catalog import BY_NAME, CONTROL_PLANE, EXTERNAL, OWN, SERVICES, Service
from include.platform.doctor import before_start, leftovers
from include.platform.endpoints import local_endpoints
from include.platform.external import problems
from include.platform.jre import LEFT_OUT
from include.platform.settings import ROOT, Settings, settings
from include.platform.supervisor import Supervisor
from include.serving.manifest import make_manifests

BOOTSTRAP, STOP = "platform_bootstrap", "platform_stop"
CONTROL = [svc.name for svc in CONTROL_PLANE]
PLATFORM = [svc.name for svc in SERVICES]
STEPS = {"start": "starting", "healthy": "waiting for health", "works": "checking that it works"}
"""What a service is doing while the bootstrap's task of that name runs."""
VALIDATE_S = 60
STOP_S = 600
CRASHING_S = 45
"""How long a process of the control plane may go on crashing before ``up`` gives up on it."""
ENDED = ("stopped", "failed")


def up(s: Settings = settings, bootstrap: bool = True, timeout_s: float = 600, quiet: bool = False) -> None:
    """Start what does not run and prove that all of it works. Raises :class:`CliError` with the reasons.

    With ``quiet`` the closing summary is left out.
    """
    started = time.monotonic()
    refuse_to_start(s)
    if not s.docker:  # there the image has the manifests, and Docker looks after Airflow
        read_dbt_project(s)
        Supervisor(s).launch()
    with ServiceBoard("Airflow, the control plane", CONTROL) as board:
        start_control_plane(s, board, started + timeout_s)
    if bootstrap:
        refuse_externals(s)
        if not validated(s):
            follow_bootstrap(s, started + timeout_s)
        out_of_it = {name: reason for name in PLATFORM if (reason := left_out(name, s))}
        say(f"[green]All {len(PLATFORM) - len(out_of_it)} services work[/] after {seconds(time.monotonic() - started)}.")
        if out_of_it:
            say(f"[yellow]Left out: {', '.join(out_of_it)}[/]. {'; '.join(dict.fromkeys(out_of_it.values()))}.")
    if not quiet:
        summary(s)
        say()
        say(next_steps("demo", "status", "sql trino 'SHOW SCHEMAS'"))


def read_dbt_project(s: Settings) -> None:
    """Make the manifests that are not there, or not of today's project."""
    started = time.monotonic()
    with out.status("Reading the dbt project") if is_live() else nullcontext():
        made = make_manifests(s)
    if made:
        say(f"Read the dbt project for {' and '.join(made)} [dim]{seconds(time.monotonic() - started)}[/]")


def refuse_to_start(s: Settings) -> None:
    """Raise :class:`CliError` with everything that would keep services from starting."""
    if found := before_start(s):
        advice = "\n".join(dict.fromkeys(f"  → {check.advice}" for check in found))
        raise CliError("Nothing was started.\n" + "\n".join(f"  {check.found}" for check in found) + f"\n{advice}")


def refuse_externals(s: Settings) -> None:
    """Raise :class:`CliError` with what is wrong with the connections of external services, before a service is started."""
    if EXTERNAL and (wrong := problems(local_endpoints(s), s)):
        lines = "\n".join(f"  {text}" for text in wrong)
        raise CliError(f"No service was started.\n{lines}\nAirflow is at {airflow_url(s)}; then run {ME} up again")


def start_control_plane(s: Settings, board: ServiceBoard, deadline: float) -> None:
    """Start Airflow's processes, each after what it needs, until all are healthy. Idempotent.

    In docker ``make up`` starts them, and they are only waited for.
    """
    endpoints = local_endpoints(s)
    begun: dict[str, float] = {}
    crashed: dict[str, float] = {}
    ill: dict[str, str] = {}
    healthy: set[str] = set()
    while len(healthy) < len(CONTROL):
        for svc in CONTROL_PLANE:
            if svc.name in healthy or not healthy.issuperset(svc.needs):
                continue
            state = seen(svc.name, s)["state"]
            if svc.name not in begun:
                begun[svc.name] = time.monotonic()
                idle = state in ("stopped", "failed")
                if idle:
                    Supervisor(s).start(svc.name)
                board.set(svc.name, "starting" if idle else "checking")
                continue
            if state == "restarting":
                crashed.setdefault(svc.name, time.monotonic())
            ended = svc.name in crashed
            words = last_words(svc.name, s, error=ended) or ill.get(svc.name, "")
            board.set(svc.name, "restarting" if ended else "starting", words)
            until = min(deadline, begun[svc.name] + svc.start_timeout_s, crashed.get(svc.name, deadline) + CRASHING_S)
            if state == "failed" or time.monotonic() > until:
                board.set(svc.name, "failed")
                why = ill.get(svc.name) if state == "running" else last_words(svc.name, s) or state
                raise CliError(
                    f"{svc.name} is not healthy after {seconds(time.monotonic() - begun[svc.name])}: {why}\n"
                    f"See {how_to_look(svc.name, s)}{'; make up starts Airflow' if s.docker else ''}"
                )
        ill = reasons([name for name in begun if name not in healthy], endpoints, s, deadline_s=6)
        for name in [name for name, reason in ill.items() if not reason and seen(name, s)["state"] in ("running", "starting")]:
            healthy.add(name)
            board.set(name, "healthy")
        time.sleep(0.3)


def validated(s: Settings) -> bool:
    """Whether every service is healthy already, and works. Takes seconds; starts and repairs nothing."""
    states = survey(PLATFORM, s)
    if not all(state.healthy or state.left_out for state in states):
        return False
    names = [state.name for state in states if state.healthy]
    from include.platform.checks import works

    endpoints = local_endpoints(s)
    with ServiceBoard("Everything runs already; checking that it works", names) as board:

        def check(name: str) -> None:
            works(name, endpoints)
            board.set(name, "works")

        for name in names:
            board.set(name, STEPS["works"])
        calls: dict[str, Callable[[], Any]] = {name: lambda name=name: check(name) for name in names}
        results = Parallel(calls).results(VALIDATE_S)
        wrong = {name: error for name, error in results.items() if isinstance(error, Exception)}
        for name, error in wrong.items():
            board.set(name, "failed", str(error).partition("\n")[0])
    return not wrong


def follow_bootstrap(s: Settings, deadline: float) -> None:
    """Run the bootstrap DAG, or follow the run that is under way, until it ends."""
    try:
        with AirflowClient(s) as airflow, ServiceBoard(f"Airflow runs {BOOTSTRAP}", PLATFORM) as board:
            follow(airflow, BOOTSTRAP, deadline, on_change=lambda run, tasks: show_tasks(board, tasks))
    except RunFailed as error:
        raise CliError(_failure_text(error, s)) from None


def show_tasks(board: ServiceBoard, tasks: list[dict[str, Any]]) -> None:
    """Put the states of the bootstrap's tasks on the board."""
    by_service: dict[str, dict[str, dict[str, Any]]] = {}
    for task in tasks:
        if found := service_step(task["task_id"]):
            by_service.setdefault(found[0], {})[found[1]] = task
    for name, steps in by_service.items():
        took = span(list(steps.values()))
        for step in reversed(STEPS):
            state = steps.get(step, {}).get("state")
            if state == "success":
                board.set(name, STEPS["healthy"] if step == "start" else step, took=took)
            elif state == "failed":
                board.set(name, "failed", f"at {step}", took=took)
            elif state == "skipped":
                board.set(name, LEFT_OUT, left_out(name) or "needs what is left out", took=took)
            elif state == "upstream_failed":
                if any(other.get("state") == "failed" for other in steps.values()):
                    continue
                board.set(name, "skipped", f"needs {', '.join((*BY_NAME[name].needs, *BY_NAME[name].check_needs))}", took=took)
            elif state in ("running", "deferred", "up_for_retry", "restarting"):
                tries = steps[step].get("try_number") or 1
                board.set(name, STEPS[step], f"try {tries}" if tries > 1 else "")
            else:
                continue
            break


def service_step(task_id: str) -> tuple[str, str] | None:
    """``storage.postgres.healthy`` → ``("postgres", "healthy")``; None for a task that is no service's."""
    *groups, step = task_id.split(".")
    name = next((part for part in reversed(groups) if part in BY_NAME), None)
    return (name, step) if name and step in STEPS else None


def _failure_text(error: RunFailed, s: Settings) -> str:
    steps = {task_id: found for task_id in error.problems if (found := service_step(task_id))}
    lines = ["The platform did not come up."]
    for task_id, (name, step) in steps.items():
        lines.append(f"  {name}, {step}: {error.problems[task_id]}")
        if words := last_words(name, s):
            lines.append(f"    its log: {words}")
        lines.append(f"    → {how_to_look(name, s)}")
    if not steps:  # the run's other tasks only report on those
        lines += [f"  {task_id}: {reason}" for task_id, reason in error.problems.items()]
    return "\n".join([*lines, f"Run {ME} up again when the cause is gone; it goes on from here. All logs: {error.url}"])


def summary(s: Settings) -> None:
    """Where everything is, and how to sign in."""
    endpoints = local_endpoints(s)
    password = ROOT / "docker" / "secrets" / "airflow_admin" if s.docker else s.secret_file("airflow_admin")
    shown = password.relative_to(ROOT) if password.is_relative_to(ROOT) else password
    say()
    say(f"  [bold]Airflow[/]          {airflow_url(s)}   user [bold]{ADMIN}[/], password in {shown}")
    for name, title in (
        ("flink-jobmanager", "Flink"),
        ("spark-master", "Spark"),
        ("trino", "Trino"),
        ("nessie", "Nessie"),
        ("clickhouse", "ClickHouse"),
        ("postgres", "PostgreSQL"),
        ("haproxy", "PostgreSQL"),
        ("dbt-docs", "dbt docs"),
        ("grafana", "Grafana"),
        ("keycloak", "Keycloak"),
    ):
        if name in BY_NAME and not left_out(name, s):
            say(f"  [bold]{title:<16}[/] {service_url(BY_NAME[name], endpoints, s)}")


def stop_order(services: list[Service]) -> list[list[str]]:
    """Names in waves: each wave may end at once, and nobody in it is needed by a later one."""
    left = {svc.name: svc for svc in services}
    waves = []
    while left:
        needed = {name for svc in left.values() for name in (*svc.needs, *svc.check_needs)}
        wave = [name for name in left if name not in needed]
        waves.append(wave)
        for name in wave:
            del left[name]
    return waves


def down(s: Settings = settings, keep_airflow: bool = False) -> None:
    """Stop everything, what is needed by others last. Data stays. Idempotent.

    Airflow ends with the first services, so that no run of a DAG starts again what was stopped. In docker it stops
    the services, and goes on.
    """
    if s.docker:
        stop_by_airflow(s)
        return
    supervisor, started = Supervisor(s), time.monotonic()
    waves = stop_order(list(OWN if keep_airflow else (*CONTROL_PLANE, *OWN)))
    names = [name for wave in waves for name in wave if seen(name, s)["state"] not in ENDED]
    if names:
        with ServiceBoard("Stopping", names) as board:

            def stop(name: str) -> None:
                board.set(name, "stopping")
                supervisor.stop(name)
                board.set(name, "stopped")

            for wave in waves:
                alive = [name for name in wave if name in names]
                longest = max((BY_NAME[name].stop_timeout_s for name in alive), default=0)
                calls: dict[str, Callable[[], Any]] = {name: lambda name=name: stop(name) for name in alive}
                for name, result in Parallel(calls).results(longest + 15).items():
                    if isinstance(result, Exception):
                        raise CliError(f"{name} did not stop: {result}")
    orphans = 0
    if not keep_airflow:
        supervisor.shutdown()
        orphans = end_leftovers(s)
    if names:
        say(f"Stopped {len(names)} services in {seconds(time.monotonic() - started)}. {ME} up starts them again.")
    if orphans:
        say(f"Ended {orphans} processes that had outlived their supervisor.")
    if not names and not orphans:
        say("Nothing was running.")


def stop_by_airflow(s: Settings) -> None:
    """Let the DAG platform_stop stop the services, after a bootstrap that is under way was ended."""
    started = time.monotonic()
    try:
        with AirflowClient(s) as airflow:
            latest = airflow.latest_run(BOOTSTRAP)
            if latest and latest["state"] in UNDER_WAY:
                run = f"/dags/{BOOTSTRAP}/dagRuns/{quote(latest['dag_run_id'], safe='')}"
                airflow.request("PATCH", run, json={"state": "failed"})
            names = alive(s)
            if names:
                with ServiceBoard(f"Airflow runs {STOP}", names) as board:
                    follow(airflow, STOP, started + STOP_S, on_change=lambda run, tasks: show_stops(board, tasks))
    except AirflowUnreachable:
        if alive(s):
            raise CliError("Airflow, which stops the services, does not answer; make down stops them without it") from None
        say("Nothing was running.")
        return
    took = seconds(time.monotonic() - started)
    done = f"Stopped {len(names)} services in {took}; {ME} up starts them again." if names else "No service was running."
    say(f"{done} Airflow goes on: [bold]make down[/] ends it, too.")


def alive(s: Settings) -> list[str]:
    """The platform's services that are not stopped."""
    return [svc.name for svc in OWN if seen(svc.name, s)["state"] not in ENDED]


def show_stops(board: ServiceBoard, tasks: list[dict[str, Any]]) -> None:
    """Put the states of the tasks of platform_stop on the board."""
    shown = {"running": "stopping", "success": "stopped", "failed": "failed", "skipped": "not ours to stop"}
    for task in tasks:
        if task["task_id"] in board.rows and task["state"] in shown:
            board.set(task["task_id"], shown[task["state"]])


def end_leftovers(s: Settings) -> int:
    """End service processes of this checkout whose supervisord is gone; how many there were."""
    orphans = leftovers(s)
    pids = {process.pid for process in orphans}
    for process, name in orphans.items():
        with suppress(psutil.NoSuchProcess):
            if process.ppid() not in pids:  # each service's first process ends its own children
                process.send_signal(signal.Signals[f"SIG{BY_NAME[name].stop_signal}"])
    _, alive = psutil.wait_procs(list(orphans), timeout=20)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=10)
    return len(orphans)
