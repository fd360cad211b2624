"""The commands of ``./shudl``. Each imports what it needs when it runs, so that help is instant."""

from __future__ import annotations

import os
import sys
import threading
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from include.cli.console import (
    FAILED,
    IN_DOCKER,
    INTERRUPTED,
    ME,
    NOT_HEALTHY,
    OK,
    USAGE,
    CliError,
    complain,
    interruptible,
    out,
    say,
)

LOCAL = "127.0.0.1,localhost"
WHERE = (
    "The platform runs in containers of this host, which [bold]make up[/] and [bold]make down[/] start and end. Addresses are "
    "the host's (localhost and the published port) where a port is published, else those between containers."
    if IN_DOCKER
    else "The platform runs on this machine. With docker/compose.yaml it runs in containers, and has the same commands: "
    "docker compose -f docker/compose.yaml run --rm cli --help."
)
EXIT_CODES = (
    f"[bold]Exit codes[/]: {OK} done · {FAILED} failed · {USAGE} wrong usage · {NOT_HEALTHY} not running or not healthy · "
    f"{INTERRUPTED} interrupted (run the command again: it goes on)"
)

app = typer.Typer(
    name="shudl",
    help="[bold]ShuDL[/]: a lakehouse of your own, run by Airflow.\n\nPostgreSQL → Kafka → Iceberg → ClickHouse, "
    f"with Debezium, Flink, Trino and dbt.\n\nStart with [bold]{ME} demo[/] or [bold]{ME} up[/].\n\n{WHERE}",
    epilog=EXIT_CODES,
    rich_markup_mode="rich",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

PLATFORM, LOOK, PIPELINES = "The platform", "Look inside", "Pipelines"
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.command(rich_help_panel=PLATFORM, epilog=EXIT_CODES)
def up(
    no_bootstrap: Annotated[bool, typer.Option("--no-bootstrap", help="Start Airflow only.")] = False,
    timeout: Annotated[float, typer.Option(min=10, metavar="S", help="Give up after so many seconds.")] = 600,
) -> None:
    """Start everything and prove that it works.

    Starts Airflow, then lets its DAG [bold]platform_bootstrap[/] start each service in order, wait until it is
    healthy, and use it. On a platform that is up it only validates. Interrupted, it goes on when run again.
    In containers [bold]make up[/] starts Airflow, and this waits for it.
    """
    from include.cli.up import up as bring_up

    with interruptible(f"What was started goes on; {ME} up follows it again, {ME} down stops it."):
        bring_up(bootstrap=not no_bootstrap, timeout_s=timeout)


@app.command(rich_help_panel=PLATFORM, epilog=EXIT_CODES)
def down(
    keep_airflow: Annotated[bool, typer.Option("--keep-airflow", help="Stop the services only; Airflow goes on.")] = False,
) -> None:
    """Stop everything; data stays.

    What others need stops last. Nothing to stop is not an error. In containers Airflow goes on: its DAG
    [bold]platform_stop[/] stops the services, and [bold]make down[/] ends Airflow, too.
    """
    from include.cli.up import down as bring_down

    with interruptible(f"Some services may still run; {ME} down goes on."):
        bring_down(keep_airflow=keep_airflow)


@app.command(rich_help_panel=PLATFORM, epilog=EXIT_CODES)
def demo(
    from_day: Annotated[
        datetime, typer.Option(formats=["%Y-%m-%d"], help="First day that is replayed instead of loaded.")
    ] = datetime(2013, 12, 1),
    rate: Annotated[float, typer.Option(min=0, help="Changes a second of the replay; 0 is as fast as possible.")] = 200,
    until: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last day of the replay; all by default.")] = None,
) -> None:
    """Run the main job on real data: a year of flights, from PostgreSQL to ClickHouse, and the proof.

    Starts what does not run. What an earlier run has done is only checked, so a second run takes little time.
    """
    from include.cli.demo import demo as run

    with interruptible("What was started goes on; run the same command again."):
        run(from_day.date(), rate, until.date() if until else None)


@app.command(rich_help_panel=PLATFORM, epilog=EXIT_CODES)
def doctor(as_json: Json = False) -> None:
    """Check whether this machine can run ShuDL, and say how to mend what is wrong.

    Changes nothing. Exit code 1 when something fails; warnings do not count. In a container it checks what that was given;
    [bold]make check-docker[/] checks the host.
    """
    from rich.markup import escape

    from include.platform.doctor import examine
    from include.platform.machine import Check, show

    style = {"ok": "green", "warn": "yellow", "fail": "red"}

    def line(status: str, check: Check) -> None:
        say(f"[{style[check.status]}]{status}[/]  {check.name:<19} {escape(check.found)}")
        if check.advice:
            say(f"{'':<25} → {escape(check.advice)}")

    if not show(examine(), as_json, line):
        raise typer.Exit(FAILED)


@app.command(rich_help_panel=LOOK, epilog=EXIT_CODES)
def status(as_json: Json = False) -> None:
    """Show every service, the pipelines, and what takes space.

    A service is [bold]stopped[/], [bold]starting[/] (not ready yet), [bold]healthy[/], [bold]unhealthy[/] (runs, but
    does not answer as it should), [bold]restarting[/] (crashed), [bold]stopping[/], [bold]failed[/] (the supervisor gave up),
    [bold]external[/] (healthy, and not ours) or [bold]left out[/] (this machine cannot run it, or its container was not
    created; all else works without).
    In containers it may be [bold]paused[/], and neither process nor memory is told.

    JSON: {healthy, services: \\[{name, title, layer, state, healthy, reason, url, pid, uptime_s, rss_mb}],
    pipelines: \\[…], disk: {free_mb, data_mb, logs_mb}}. Exit code 0 when all is healthy, external or left out, else 3.
    """
    from include.cli.status import show
    from include.cli.status import status as look

    found = look()
    show(found, as_json)
    if not found["healthy"]:
        raise typer.Exit(NOT_HEALTHY)


@app.command(rich_help_panel=LOOK, epilog=EXIT_CODES)
def logs(
    name: Annotated[str, typer.Argument(metavar="SERVICE", help="As status names it; or supervisord, or cli.")],
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="How many of the last lines.")] = 50,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what is logged from now on.")] = False,
) -> None:
    """Show the end of a service's log. Those of Airflow's containers, and what follows, Docker shows on the host."""
    from include.platform.catalog import BY_NAME, EXTERNAL
    from include.platform.settings import settings

    names = [*BY_NAME, *(() if settings.docker else ("supervisord",)), "cli"]
    if name not in names:
        raise CliError(f"{name}: no such service; there are {', '.join(names)}", USAGE)
    if name in EXTERNAL:
        raise CliError(f"{name} is external (connection {EXTERNAL[name]}): its log is where it runs")
    if settings.docker and name in BY_NAME:
        from include.cli.containers import show_logs

        show_logs(name, lines, follow)
        return
    path = settings.logs / f"{name}.log"
    if not path.exists():
        raise CliError(f"{name} has logged nothing yet ({path})")
    out.file.flush()
    os.execvp("tail", ["tail", "-n", str(lines), *(["-F"] if follow else []), str(path)])


@app.command(rich_help_panel=LOOK, epilog=EXIT_CODES)
def sql(
    engine: Annotated[
        Literal["postgres", "trino", "clickhouse", "flink"], typer.Argument(help="Who answers.", show_choices=True)
    ],
    query: Annotated[str, typer.Argument(help="One statement; - reads it from standard input.")],
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, with a header.")] = False,
    timeout: Annotated[int, typer.Option(min=1, metavar="S", help="End the statement after so many seconds.")] = 300,
) -> None:
    """Run one statement and print its result.

    [bold]postgres[/] is the source database; [bold]trino[/] and [bold]flink[/] read the Iceberg tables of the lake
    (schemas cdc_flights, staging, marts); [bold]clickhouse[/] serves the marts.
    """
    import time

    from include.cli.sql import run, show
    from include.platform.endpoints import local_endpoints

    if as_json and as_csv:
        raise CliError("--json and --csv: choose one", USAGE)
    text = sys.stdin.read() if query == "-" else query
    if not text.strip():
        raise CliError("the statement is empty", USAGE)
    started = time.monotonic()
    with interruptible("The statement was ended."):
        answer = run(engine, text, local_endpoints(), timeout)
    show(answer, "json" if as_json else "csv" if as_csv else "table", time.monotonic() - started)


@app.command(rich_help_panel=LOOK, epilog=EXIT_CODES)
def password(
    name: Annotated[
        Literal["airflow", "postgres", "clickhouse", "s3", "trino", "keycloak", "keycloak-user", "grafana", "kafka-ui"],
        typer.Argument(metavar="SERVICE", help="Whose password."),
    ],
) -> None:
    """Print the password that was made for a service.

    The user's name goes to standard error. Those from Trino on are there in containers only.
    """
    from include.cli.passwords import lookup

    user, secret = lookup(name)
    sys.stderr.write(f"user {user}\n")
    print(secret)


@app.command(rich_help_panel=PIPELINES, epilog=EXIT_CODES)
def check(
    files: Annotated[list[Path] | None, typer.Argument(metavar="FILE", help="Default: every pipeline file.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Check the files only, not their databases.")] = False,
) -> None:
    """Check pipeline files and their databases: every problem at once, with its line and the way out.

    Changes nothing. A database that cannot be reached is a problem, too; [bold]--offline[/] leaves databases out.
    """
    from include.cli.check import check as run

    run(files or [], offline)


@app.command(rich_help_panel=PIPELINES, epilog=EXIT_CODES)
def run(
    dag_id: Annotated[str, typer.Argument(metavar="DAG", help="For example cdc_flights, or prove_flights.")],
    timeout: Annotated[float, typer.Option(min=1, metavar="S", help="Give up following after so many seconds.")] = 3600,
    conf: Annotated[str, typer.Option(metavar="JSON", help='The run\'s parameters, for example \'{"fault": "kill"}\'.')] = "{}",
) -> None:
    """Run a DAG in Airflow and follow it to its end.

    A paused DAG is unpaused: one with a schedule goes on by itself. A run that is under way is followed.
    """
    import json
    import time

    from include.cli.dags import RunBoard, follow
    from include.platform.airflow import AirflowClient

    try:
        parameters = json.loads(conf)
    except ValueError as error:
        raise CliError(f"--conf {conf}: not JSON: {error}", USAGE) from None
    with interruptible("The run goes on in Airflow."), AirflowClient() as airflow, RunBoard(dag_id) as board:
        airflow.wait_for_dags({dag_id})
        follow(airflow, dag_id, time.monotonic() + timeout, board.show, parameters)


@app.command(rich_help_panel=PIPELINES, epilog=EXIT_CODES)
def land(
    folder: Annotated[str, typer.Argument(help="Folder in the landing bucket; its table is raw.FOLDER.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE", exists=True, dir_okay=False, readable=True)],
) -> None:
    """Put files into the landing bucket, where they become rows of the lake.

    Any S3 client may do the same. The DAG [bold]ingest_landing[/] starts by itself, and loads each version of a file once.
    """
    from include.ingest.landing import put
    from include.platform.endpoints import local_endpoints

    with interruptible("What was put there is loaded; the file that was under way is not there."):
        for path in files:
            with path.open("rb") as file:
                say(f"s3://landing/{put(local_endpoints(), folder, path.name, file)}")


source = typer.Typer(no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
app.add_typer(source, name="source", rich_help_panel=PIPELINES, epilog=EXIT_CODES)


@source.callback()
def _source() -> None:
    """Add a database of your own, or remove it."""


@source.command("add", epilog=EXIT_CODES)
def source_add(
    url: Annotated[str, typer.Argument(help="postgresql://user@host:port/database, without a password.")],
    name: Annotated[str | None, typer.Option(help="Name of the source; by default the database's.")] = None,
    schema: Annotated[list[str] | None, typer.Option(help="Only this schema; may be repeated. Default: all.")] = None,
) -> None:
    """Write a first pipeline file for a database, and say what must change in PostgreSQL.

    Looks at tables, keys and sizes; changes nothing in the database. The password comes from PGPASSWORD or ~/.pgpass, or is
    asked for; it is kept in a file that only you can read, and in Airflow's connection [bold]<name>_db[/].
    """
    from include.cli.source import add

    with interruptible("The pipeline file is either complete or not there."):
        add(url, name, schema or [])


@source.command("remove", epilog=EXIT_CODES)
def source_remove(name: Annotated[str, typer.Argument(help="Name of the source, as in its pipeline file.")]) -> None:
    """End a pipeline: its jobs, connector, topics, slot and publication go; tables stay, here and in the lake.

    The pipeline file is put aside. Deleting that file by hand would leave the slot, for which PostgreSQL keeps its WAL.
    """
    from include.cli.source import remove

    with interruptible("Run the same command again: it goes on."):
        remove(name)


def main() -> None:
    """Run the command line. Our own errors end it with one paragraph; others leave a traceback in ``logs/cli.log``."""
    for name in ("no_proxy", "NO_PROXY"):  # everything here is local: never by way of a proxy
        os.environ[name] = "*" if IN_DOCKER else ",".join(filter(None, (os.environ.get(name), LOCAL)))
    try:
        app(prog_name=ME)
        code = OK
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else OK
    except CliError as error:
        complain(str(error))
        code = error.code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILED
    except Exception as error:
        if type(error).__module__.startswith("include."):
            complain(str(error))
        else:
            complain(
                f"Unexpected {type(error).__name__}: {str(error).partition(chr(10))[0]}. The details are in {_record(error)}"
            )
        code = FAILED
    _leave(code)


def _leave(code: int) -> NoReturn:
    """End now. Threads that still wait for a store which does not answer are left behind."""
    sys.stdout.flush()
    sys.stderr.flush()
    if threading.active_count() > 1:
        os._exit(code)
    sys.exit(code)


def _record(error: Exception) -> Path:
    """Append the traceback to the command line's log; its path."""
    import logging.handlers

    from include.platform.settings import settings

    path = settings.logs / "cli.log"
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=5_000_000, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    handler.emit(
        logging.LogRecord(
            "cli", logging.ERROR, __file__, 0, " ".join(sys.argv[1:2]), None, (type(error), error, error.__traceback__)
        )
    )
    handler.close()
    return path
