"""``demo``: the main job on real data, from nothing to the proof, told phase by phase."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

from rich.table import Table

from include.cdc.pipelines import by_source
from include.cli.console import ME, CliError, next_steps, out, say, size
from include.cli.dags import UNDER_WAY, RunBoard, follow, run_url
from include.cli.hops import HopBoard
from include.cli.phases import Phases
from include.cli.processes import MemoryPeak
from include.cli.state import airflow_url
from include.cli.up import up
from include.platform.airflow import AirflowClient
from include.platform.endpoints import Endpoints, local_endpoints
from include.platform.evidence import latest_evidence, write_evidence
from include.platform.settings import Settings, settings

TABLE = "public.flights"
WATCH_S = 20.0
READ_EVERY_S = 1.5
PHASE_S = 900.0


def demo(from_day: date, rate: float, until: date | None, s: Settings = settings) -> None:
    """Run the demo; everything that is done already is only checked. Raises :class:`CliError`."""
    phases, endpoints = Phases(), local_endpoints(s)
    with MemoryPeak(s) as memory:
        with phases("Start every service and see that it works"):
            up(s, quiet=True)
        with AirflowClient(s) as airflow:
            with phases("Load the flights of 2013 into PostgreSQL"):
                _load(airflow, endpoints, from_day)
            with phases("Mirror five tables in the lake: PostgreSQL → Kafka → Iceberg"):
                _run(airflow, "cdc_flights")
                _watch("Flights on their way", endpoints, _covered(endpoints))
            with phases(f"Replay the days after as live traffic, {rate:g} changes a second"):
                if _start_replay(airflow, endpoints, rate, until):
                    _watch("Live traffic", endpoints, _for(WATCH_S))
            with phases("Build and test the marts on Trino, publish them to ClickHouse"):
                _run(airflow, "publish_flights")
            with phases("Prove that every row is the same in PostgreSQL, Iceberg and ClickHouse"):
                _run(airflow, "prove_flights")
            urls = {
                dag: run_url(airflow, dag, airflow.latest_run(dag)["dag_run_id"]) for dag in ("publish_flights", "prove_flights")
            }
    _results(endpoints)
    proof = latest_evidence("prove_flights", s) or {}
    say()
    out.print(proof_table(proof))
    say()
    out.print(phases.table())
    say()
    kept: dict[str, Any] = {"phases_s": phases.took, "total_s": phases.total}
    if memory.peak:  # of containers only Docker knows it
        services = ", ".join(f"{name} {size(held)}" for name, held in list(memory.by_service.items())[:4])
        say(f"Peak memory, Airflow included: [bold]{size(memory.peak)}[/] [dim]({services}, …)[/]")
        kept |= {"peak_bytes": memory.peak, "highest_bytes": memory.highest}
    write_evidence("demo", datetime.now(UTC).strftime("%Y%m%dT%H%M%S"), kept, s)
    say(f"Proof: [bold green]{proof.get('unresolved')} rows unresolved[/]; evidence in {s.evidence / 'prove_flights'}")
    say(f"\n  [bold]Airflow[/]  {airflow_url(s)}   user admin, password: {ME} password airflow")
    for dag, url in urls.items():
        say(f"  [bold]{dag}[/]  {url}")
    then = next_steps("status", "sql clickhouse 'SELECT * FROM serving.otp_by_carrier'", "down")
    say(f"\nWhat is left of the replay goes on by itself. {then}")


def _run(airflow: AirflowClient, dag_id: str, conf: dict[str, Any] | None = None) -> None:
    with RunBoard(dag_id) as board:
        follow(airflow, dag_id, time.monotonic() + PHASE_S, board.show, conf)


def _load(airflow: AirflowClient, endpoints: Endpoints, from_day: date) -> None:
    from include.demo.flights import DemoError, describe, position

    try:
        loaded = position(endpoints["flights_db"].conninfo)
    except DemoError:
        _run(airflow, "demo_load", {"from_day": from_day.isoformat()})
        loaded = position(endpoints["flights_db"].conninfo)
    if loaded.from_day != from_day:
        raise CliError(
            f"--from-day {from_day}: the flights are loaded up to {loaded.from_day} already. "
            "Use that day, or load anew in Airflow: DAG demo_load with reset."
        )
    say(f"  {describe(loaded)}")


def _start_replay(airflow: AirflowClient, endpoints: Endpoints, rate: float, until: date | None) -> bool:
    """Let Airflow replay what is left; False when nothing is."""
    from include.demo.flights import position

    if position(endpoints["flights_db"].conninfo).finished:
        say("  everything was replayed before")
        return False
    airflow.wait_for_dags({"demo_replay"})
    latest = airflow.latest_run("demo_replay")
    if latest and latest["state"] in UNDER_WAY:
        say("  the replay is under way")
        return True
    airflow.unpause("demo_replay")
    airflow.trigger("demo_replay", {"rate": rate, "until": until.isoformat() if until else None})
    return True


def _covered(endpoints: Endpoints) -> Callable[[], bool]:
    """A condition that becomes true when the lake holds what the source held when it was made; raises what went wrong."""
    from include.cdc.coverage import wait_until_covered

    failure: list[BaseException] = []

    def wait() -> None:
        try:
            wait_until_covered(by_source("flights"), endpoints, timeout_s=PHASE_S)
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()

    def done() -> bool:
        if failure:
            raise failure[0]
        return not thread.is_alive()

    return done


def _for(duration_s: float) -> Callable[[], bool]:
    until = time.monotonic() + duration_s
    return lambda: time.monotonic() >= until


def _watch(title: str, endpoints: Endpoints, done: Callable[[], bool]) -> None:
    """Show the hops of the flights' table until ``done``; at least once."""
    from include.cdc.status import HopMeter

    meter = HopMeter(by_source("flights"), TABLE, endpoints)
    try:
        with HopBoard(title) as board:
            while True:
                finished = done()
                board.show(meter.read())
                if finished:
                    return
                time.sleep(READ_EVERY_S)
    finally:
        meter.close()


def proof_table(evidence: dict[str, Any]) -> Table:
    """The comparisons of a proof: each table, the two stores, their rows, and how many differ."""
    table = Table(title="Proved equal, row by row", title_justify="left", box=None, pad_edge=False, header_style="dim")
    table.add_column("table")
    table.add_column("compared")
    for title in ("rows", "missing", "extra", "different"):
        table.add_column(title, justify="right")
    for found in evidence.get("comparisons", ()):
        differ = (f"{found[kind]['count']:,}" for kind in ("missing", "extra", "different"))
        table.add_row(found["table"], f"{found['left']} → {found['right']}", f"{found['right_rows']:,}", *differ)
    return table


def _results(endpoints: Endpoints) -> None:
    from include.serving.clickhouse import connect

    with connect(endpoints) as client:
        rows = client.query(
            "SELECT carrier_name, flights, cancelled, round(on_time_share * 100, 1), round(avg_arr_delay_min, 1) "
            "FROM serving.otp_by_carrier ORDER BY flights DESC LIMIT 8"
        ).result_rows
    table = Table(
        title="On-time performance by carrier, from ClickHouse",
        title_justify="left",
        box=None,
        pad_edge=False,
        header_style="dim",
    )
    for title in ("carrier", "flights", "cancelled", "on time %", "average delay, min"):
        table.add_column(title, justify="left" if title == "carrier" else "right")
    for row in rows:
        table.add_row(row[0], f"{row[1]:,}", f"{row[2]:,}", *(str(value) for value in row[3:]))
    say()
    out.print(table)
