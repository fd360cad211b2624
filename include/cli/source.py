"""``source``: from a database's address to a pipeline file, its connection, and what PostgreSQL must be told."""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
import time
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import class_row

from include.cdc.check import findings, libpq_reason
from include.cdc.pipelines import (
    HEARTBEAT_TABLE,
    NAME,
    SCHEMA,
    Pipeline,
    PipelineError,
    by_source,
    files,
    lake_name,
    read_all,
)
from include.cdc.source import describe
from include.cli.console import ME, USAGE, CliError, next_steps, say, size
from include.cli.dags import UNDER_WAY
from include.platform.airflow import AirflowClient, AirflowError, AirflowUnreachable
from include.platform.catalog import CONN_IDS
from include.platform.endpoints import Endpoint, keep, local_endpoints
from include.platform.settings import ROOT, Settings, settings

PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.$]*")
"""Table names that YAML takes for text without quotes."""

HERE = ("localhost", "127.0.0.1", "::1")
RUN_S = 300
"""How long a run of the pipeline's DAG may take to end."""

_TABLES = """
SELECT n.nspname || '.' || c.relname AS name,
       n.nspname LIKE '%%.%%' OR c.relname LIKE '%%.%%' AS dotted,
       leaves.rows, leaves.bytes,
       (SELECT string_agg(a.attname, ', ' ORDER BY k.position)
        FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, position)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
        WHERE i.indrelid = c.oid AND i.indisprimary) AS key
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
    SELECT CASE WHEN min(l.reltuples) < 0 THEN -1 ELSE sum(l.reltuples) END::bigint AS rows,
           sum(pg_total_relation_size(l.oid))::bigint AS bytes
    FROM pg_class l
    WHERE c.relkind = 'r' AND l.oid = c.oid
       OR c.relkind = 'p' AND l.oid IN (SELECT relid FROM pg_partition_tree(c.oid) WHERE isleaf)
) leaves
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  AND n.nspname <> %(own)s AND (%(schemas)s::text[] IS NULL OR n.nspname = ANY(%(schemas)s))
  AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY n.nspname <> 'public', 1
"""


@dataclass(frozen=True)
class Found:
    """A table of the database. ``rows`` is PostgreSQL's estimate, -1 when it has none; ``key`` its columns or None."""

    name: str
    dotted: bool
    rows: int | None
    bytes: int | None
    key: str | None

    @property
    def mode(self) -> str:
        return "mirror" if self.key else "changelog"

    @property
    def remark(self) -> str:
        unknown = self.rows is None or self.rows < 0
        rows = "not counted yet" if unknown else f"about {self.rows:,} row{'s' * (self.rows != 1)}"
        key = f"key {self.key}" if self.key else "no key, so that it has no mirror: every change is kept as a row"
        return f"{rows}, {size(self.bytes or 0)}, {key}"


def add(url: str, name: str | None, schemas: list[str], s: Settings = settings) -> None:
    """Write a pipeline file and its connection for the database at ``url``. Raises :class:`CliError`; overwrites no file."""
    endpoint = _endpoint(url)
    if s.docker and endpoint.host in HERE:
        raise CliError(
            f"{endpoint.host} is this container, where no database runs; name the host as containers reach it: its address in "
            "the network, or a service's name",
            USAGE,
        )
    source = name or re.sub(r"[^a-z0-9_]+", "_", endpoint.schema.lower()).strip("_")[:40]
    if not re.fullmatch(NAME, source):
        raise CliError(f"--name {source}: must begin with a small letter and go on with small letters, digits and _", USAGE)
    endpoint = replace(endpoint, conn_id=f"{source}_db")
    path = s.pipelines / f"{source}.yml"
    _refuse_read_only(s)
    _refuse_taken(source, endpoint.conn_id, path)
    endpoint = _signed_in(endpoint)
    with psycopg.connect(endpoint.conninfo, autocommit=True) as connection:
        tables = _tables(connection, schemas)
        reasons = _reasons(connection, source, endpoint.conn_id, tables)
        carried = [table for table in tables if table.name not in reasons]
        if not carried:
            told = "\n".join(f"  {table}: {reason}" for table, reason in reasons.items())
            where = f"in schema {', '.join(schemas)} of" if schemas else "in"
            raise CliError(f"Nothing was written: no table {where} database {endpoint.schema} can be carried.\n{told}")
        wanted = findings(connection, _pipeline(source, endpoint.conn_id, carried))
        version = connection.info.parameter_status("server_version")
    keep(endpoint, s)
    _write_new(path, _text(source, endpoint, f"PostgreSQL {version}", tables, reasons))
    taken = _tell_airflow(endpoint, s)
    keyless = sum(not table.key for table in carried)
    notes = [f"{keyless} without key as changelog"] * bool(keyless) + [f"{len(reasons)} left out"] * bool(reasons)
    counted = f"{len(carried)} table{'s' * (len(carried) != 1)}" + (f" ({', '.join(notes)})" if notes else "")
    say(f"Wrote {_shown(path)}: {counted}.")
    say(f"Connection {endpoint.conn_id}: {taken}.")
    if statements := list(dict.fromkeys(statement for finding in wanted for statement in finding.sql)):
        say(f"\nPostgreSQL must be changed first. As an administrator, in database {endpoint.schema}:\n")
        for statement in statements:
            print(f"    {statement}")
    for finding in wanted:
        if not finding.sql:
            say(f"\n{finding.what}; {finding.way_out}")
    say(
        "\nLook at the file. The first run of its DAG starts what then goes on by itself. "
        + next_steps(f"check {_shown(path)}", f"run cdc_{source}", f"run prove_{source}")
    )


def remove(name: str, s: Settings = settings) -> None:
    """End a pipeline: its DAG is paused, what it made is taken away, and its file put aside. Raises :class:`CliError`.

    Tables of the source and of the lake stay. Interrupted, it goes on when run again.
    """
    from include.cdc.remove import remove as take_away

    pipeline, endpoints, dag_id = by_source(name), local_endpoints(s), f"cdc_{name}"
    _refuse_read_only(s)
    with AirflowClient(s) as airflow:
        if dag_id in {dag["dag_id"] for dag in airflow.dags()}:
            airflow.pause(dag_id)
            deadline = time.monotonic() + RUN_S
            while (run := airflow.latest_run(dag_id)) and run["state"] in UNDER_WAY:
                if time.monotonic() > deadline:
                    raise CliError(f"{dag_id} still runs after {RUN_S} s; end that run in Airflow, and run this command again")
                time.sleep(0.5)
        try:
            done = take_away(pipeline, endpoints)
        except httpx.TransportError as error:
            address = f"{error.request.url.host}:{error.request.url.port}"
            raise CliError(f"{address} does not answer; {ME} up starts what is missing") from None
        for change in done:
            say(f"  {change}")
        assert pipeline.path
        aside = pipeline.path.replace(pipeline.path.with_name(f"{pipeline.path.name}.removed"))
        secret = s.source_secrets / f"{pipeline.connection}.json"
        if secret.exists():
            airflow.delete_connection(pipeline.connection)
            secret.unlink()
    say(
        f"Removed source {name}. Its file is now {_shown(aside)}; its tables stay in the lake: drop cdc_{name}.* before you add "
        "the source again. In PostgreSQL table shudl.heartbeat and REPLICA IDENTITY FULL stay as they are."
    )


def _endpoint(url: str) -> Endpoint:
    """The address in ``url``; its ``conn_id`` is still empty."""
    if not url.startswith(("postgresql://", "postgres://")):
        raise CliError(f"{url}: must be postgresql://user@host:port/database", USAGE)
    try:
        parts = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        raise CliError(f"The URL cannot be read: {str(error).strip()}", USAGE) from None
    if "password" in parts:
        raise CliError(
            "The URL holds a password, which the shell's history and the list of processes would show. Leave it out: "
            "it is taken from PGPASSWORD or ~/.pgpass, or asked for.",
            USAGE,
        )
    for key, example in (("user", "user@"), ("host", "host"), ("dbname", "/database")):
        if not parts.get(key):
            raise CliError(f"{url}: lacks {example}; write postgresql://user@host:port/database", USAGE)
    if other := sorted(set(parts) - {"user", "host", "port", "dbname"}):
        raise CliError(f"{url}: {', '.join(other)} cannot be given here; write postgresql://user@host:port/database", USAGE)
    try:
        port = int(parts.get("port") or 5432)
    except ValueError:
        raise CliError(f"{url}: name one host and one port", USAGE) from None
    return Endpoint("", "postgres", str(parts["host"]), port, login=str(parts["user"]), schema=str(parts["dbname"]))


def _signed_in(endpoint: Endpoint) -> Endpoint:
    """``endpoint`` with the password that opens it: from libpq's own places, or asked for on the terminal."""
    where = f"{endpoint.login}@{endpoint.address}/{endpoint.schema}"
    given = {"host": endpoint.host, "port": endpoint.port, "user": endpoint.login, "dbname": endpoint.schema}
    password: dict[str, str] = {}
    while True:
        try:
            with psycopg.connect(**given, **password, connect_timeout=10) as connection:
                return replace(endpoint, password=connection.info.password)
        except psycopg.OperationalError as error:
            reason = libpq_reason(error)
            if "no password supplied" not in reason or password:
                raise CliError(f"{where}: {reason}. Nothing was written.") from None
            if not sys.stdin.isatty():
                raise CliError(f"Nothing was written: {where} wants a password; set PGPASSWORD, or use ~/.pgpass.") from None
            password = {"password": getpass.getpass(f"Password of {where}: ")}


def _refuse_read_only(s: Settings) -> None:
    place = s.pipelines
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK | os.X_OK):
        way_out = "mount it writable (docker/compose.yaml) and" if s.docker else "set SHUDL_PIPELINES to a folder of yours, or"
        raise CliError(f"{place} cannot be written; {way_out} let uid {os.getuid()} write there. Nothing was changed.")


def _refuse_taken(source: str, conn_id: str, path: Path) -> None:
    if path.exists():
        raise CliError(f"{path} is there already; nothing was written. Edit it, or choose another --name.")
    if conn_id in CONN_IDS.values():
        raise CliError(f"Connection {conn_id} is the demo's; nothing was written. Choose another --name.")
    for other in read_all(files())[0]:
        if other.source == source:
            raise CliError(f"{other.at('source')}: claims {source} already; nothing was written. Choose another --name.")


def _tables(connection: psycopg.Connection[Any], schemas: list[str]) -> list[Found]:
    known = {row[0] for row in connection.execute("SELECT nspname FROM pg_namespace")}
    if missing := [schema for schema in schemas if schema not in known]:
        raise CliError(f"--schema {missing[0]}: there is no such schema in database {connection.info.dbname}", USAGE)
    asked = {"schemas": schemas or None, "own": HEARTBEAT_TABLE.partition(".")[0]}
    return connection.cursor(row_factory=class_row(Found)).execute(_TABLES, asked).fetchall()


def _reasons(connection: psycopg.Connection[Any], source: str, conn_id: str, tables: list[Found]) -> dict[str, str]:
    """Why tables cannot be carried, by name."""
    reasons = {table.name: "a dot in its name cannot be told from the one after the schema" for table in tables if table.dotted}
    owners: dict[str, str] = {}
    for table in tables:
        if table.name not in reasons:
            kept = lake_name(table.name) + ("" if table.key else "_changelog")
            if kept in owners:
                reasons[table.name] = f"becomes {kept} in the lake, and so does {owners[kept]}"
            owners.setdefault(kept, table.name)
    left = [table for table in tables if table.name not in reasons]
    if not left:
        return reasons
    pipeline = _pipeline(source, conn_id, left)
    try:
        describe(connection, pipeline)
    except PipelineError as error:
        for table in left:
            prefix = f"{pipeline.at('tables', table.name)}: "
            if told := [problem.removeprefix(prefix) for problem in error.problems if problem.startswith(prefix)]:
                reasons[table.name] = "; ".join(told)
    return reasons


def _pipeline(source: str, conn_id: str, tables: list[Found]) -> Pipeline:
    modes = {table.name: {"mode": table.mode} for table in tables}
    return Pipeline.model_validate({"source": source, "connection": conn_id, "tables": modes})


def _text(source: str, endpoint: Endpoint, server: str, tables: list[Found], reasons: dict[str, str]) -> str:
    """The pipeline file. What stands in comments holds no line break, whatever the names hold."""
    schema = SCHEMA.name if settings.pipelines == SCHEMA.parent else str(SCHEMA)
    lines = [
        f"# yaml-language-server: $schema={schema}",
        f"# Made by ./shudl source add on {date.today()}, from database {endpoint.schema} at {endpoint.address}, {server}.",
        "# Modes: mirror (equals the source table), changelog (every change as a row), both. Sizes are of that day.",
        f"source: {source}",
        f"connection: {endpoint.conn_id}",
        "tables:",
    ]
    for table in tables:
        name = table.name if PLAIN.fullmatch(table.name) else json.dumps(table.name)
        if reason := reasons.get(table.name):
            lines.append(f"  # {name}: left out: {reason}")
        else:
            lines.append(f"  {name}: {{mode: {table.mode}}}  # {table.remark}")
    return "".join(f"{''.join(c if c.isprintable() else '?' for c in line)}\n" for line in lines)


def _write_new(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise CliError(f"{path} is there already; nothing was written. Edit it, or choose another --name.") from None


def _tell_airflow(endpoint: Endpoint, s: Settings) -> str:
    """Put the connection into Airflow at once, if it runs; what came of it."""
    try:
        with AirflowClient(s) as airflow:
            airflow.set_connection(endpoint)
    except AirflowUnreachable:
        return "kept; Airflow takes it over when it starts"
    except AirflowError as error:
        raise CliError(f"Connection {endpoint.conn_id} is kept, but Airflow does not take it: {error}") from None
    return "kept, and made in Airflow"


def _shown(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
