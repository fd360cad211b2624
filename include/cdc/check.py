"""Whether a pipeline's source is as the pipeline needs it: everything that is wrong at once, before anything changes.

``./shudl check``, ``./shudl source add`` and the first task of ``cdc_<source>`` all ask here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
from psycopg import sql
from psycopg.rows import namedtuple_row

from include.cdc.connector import changed_selection, connector_state, has_captured
from include.cdc.pipelines import HEARTBEAT_TABLE, Pipeline, PipelineError
from include.cdc.source import SourceTable, describe, quoted
from include.platform.endpoints import Endpoints

OLDEST = 17
"""PostgreSQL 17 is the first whose logical slots survive a failover."""

REFUSED = re.compile(
    r"authentication failed|does not exist|no pg_hba.conf entry|no password supplied|not permitted|permission denied"
)
"""What PostgreSQL says when it answers, and the connection itself is wrong."""


class SourceUnreachable(PipelineError):
    """The source does not answer; what is wrong with it cannot be told."""


@dataclass(frozen=True)
class Finding:
    """One thing that keeps the source from being captured.

    ``keys``: the place in the pipeline file that it belongs to; ``sql``: statements that an administrator can run.
    """

    keys: tuple[str, ...]
    what: str
    way_out: str
    sql: tuple[str, ...] = ()


def connect(pipeline: Pipeline, endpoints: Endpoints) -> psycopg.Connection[Any]:
    """A connection to the source in autocommit mode.

    Raises :class:`PipelineError` where the connection is unknown or refused, :class:`SourceUnreachable` where nothing
    answers, both with libpq's own reason.
    """
    where, name = pipeline.at("connection"), pipeline.connection
    try:
        endpoint = endpoints[name]
        return psycopg.connect(endpoint.conninfo, autocommit=True)
    except KeyError:
        text = f"there is no connection {name}; ./shudl source add makes one, and so does Airflow under Admin, Connections"
        raise PipelineError([f"{where}: {text}"]) from None
    except ValueError as error:
        raise PipelineError([f"{where}: {error}; name a connection to PostgreSQL"]) from None
    except psycopg.OperationalError as error:
        reason = libpq_reason(error)
        kind, way_out = (
            (PipelineError, f"correct connection {name}")
            if REFUSED.search(reason)
            else (SourceUnreachable, f"start the database, or correct connection {name}")
        )
        raise kind([f"{where}: {endpoint.address} cannot be used: {reason}; {way_out}"]) from None


def libpq_reason(error: psycopg.Error) -> str:
    """libpq's reason for a connection that failed, one line."""
    first = str(error).strip().partition("\n")[0]
    return re.sub(r'^(connection (failed|is bad): )?(connection to server at ".*", port \d+ failed: )?', "", first)


def check(pipeline: Pipeline, endpoints: Endpoints) -> list[SourceTable]:
    """The pipeline's tables. Raises :class:`PipelineError` with everything that is wrong; changes nothing."""
    with connect(pipeline, endpoints) as connection:
        found = [
            *findings(connection, pipeline),
            *_foreign_consumer(connection, pipeline, endpoints),
            *_captured_before(connection, pipeline, endpoints),
        ]
        problems = [f"{pipeline.at(*f.keys)}: {f.what}; {f.way_out}" for f in sorted(found, key=lambda f: pipeline.line(*f.keys))]
        tables: list[SourceTable] = []
        try:
            tables = describe(connection, pipeline)
        except PipelineError as error:
            problems += error.problems
    if problems:
        raise PipelineError(problems)
    return tables


def findings(connection: psycopg.Connection[Any], pipeline: Pipeline) -> list[Finding]:
    """What is wrong with the server, the role, the slot and the rights on tables that exist."""
    if connection.info.server_version < OLDEST * 10000:
        major = connection.info.server_version // 10000
        way_out = f"ShuDL needs {OLDEST} or newer: its slots survive a failover"
        return [Finding(("connection",), f"the server is PostgreSQL {major}", way_out)]
    return [*_server(connection, pipeline), *_slot(connection, pipeline), *_rights(connection, pipeline)]


_SERVER = """
SELECT current_setting('wal_level') AS wal_level, current_user AS role, current_database() AS database,
       rolreplication OR rolsuper AS replicates,
       current_setting('max_replication_slots')::int AS max_slots, (SELECT count(*) FROM pg_replication_slots) AS slots,
       current_setting('max_wal_senders')::int AS max_senders, (SELECT count(*) FROM pg_stat_replication) AS senders,
       has_database_privilege(current_database(), 'CREATE') AS creates,
       EXISTS (SELECT 1 FROM pg_publication WHERE pubname = %(publication)s) AS has_publication,
       to_regclass(%(heartbeat)s) IS NOT NULL AS has_heartbeat,
       (SELECT active FROM pg_replication_slots WHERE slot_name = %(slot)s) AS slot_active
FROM pg_roles WHERE rolname = current_user
"""


def _server(connection: psycopg.Connection[Any], pipeline: Pipeline) -> list[Finding]:
    names = {"publication": pipeline.publication, "slot": pipeline.slot, "heartbeat": HEARTBEAT_TABLE}
    server = connection.cursor(row_factory=namedtuple_row).execute(_SERVER, names).fetchone()
    here = ("connection",)
    found = []
    if server.wal_level != "logical":
        found.append(
            Finding(
                here,
                f"wal_level is {server.wal_level}",
                "set wal_level = logical and restart PostgreSQL",
                ("ALTER SYSTEM SET wal_level = logical; -- then restart PostgreSQL",),
            )
        )
    if not server.replicates:
        statement = f"ALTER ROLE {_name(server.role)} REPLICATION;"
        found.append(Finding(here, f"role {server.role} may not replicate", statement.rstrip(";"), (statement,)))
    for name, what, used, most, needed in (
        ("max_replication_slots", "replication slot", server.slots, server.max_slots, server.slot_active is None),
        ("max_wal_senders", "WAL sender", server.senders, server.max_senders, not server.slot_active),
    ):
        if needed and used >= most:
            statement = f"ALTER SYSTEM SET {name} = {most + 4}; -- then restart PostgreSQL"
            way_out = f"drop what is not used, or raise {name} and restart PostgreSQL"
            found.append(Finding(here, f"no {what} is free: all {most} are taken", way_out, (statement,)))
    if not server.creates and not (server.has_publication and server.has_heartbeat):
        statement = f"GRANT CREATE ON DATABASE {_name(server.database)} TO {_name(server.role)};"
        what = f"role {server.role} may make neither a publication nor schema {HEARTBEAT_TABLE.partition('.')[0]}"
        found.append(Finding(here, what, statement.rstrip(";"), (statement,)))
    return found


_SLOT = """
SELECT s.plugin, s.database, s.failover, s.wal_status, s.invalidation_reason, s.active_pid, a.application_name, a.usename
FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid WHERE s.slot_name = %s
"""
DEBEZIUM = "Debezium Streaming"
"""What Debezium calls itself at the server."""


def _slot(connection: psycopg.Connection[Any], pipeline: Pipeline) -> list[Finding]:
    slot = connection.cursor(row_factory=namedtuple_row).execute(_SLOT, (pipeline.slot,)).fetchone()
    if slot is None:
        return []
    name, here = pipeline.slot, ("source",)
    drop = f"SELECT pg_drop_replication_slot('{name}');"
    if slot.plugin != "pgoutput" or slot.database != connection.info.dbname:
        what = f"slot {name} belongs to plugin {slot.plugin} in database {slot.database or 'none'}"
        return [Finding(here, what, "drop it, or give this source another name", (drop,))]
    if slot.active_pid and slot.application_name not in ("", None, DEBEZIUM):
        what = f"slot {name} is read by {slot.application_name} (process {slot.active_pid}, role {slot.usename})"
        return [Finding(here, what, "end that consumer, or give this source another name")]
    if slot.wal_status == "lost":
        what = f"slot {name} lost its WAL ({slot.invalidation_reason})"
        return [Finding(here, what, "drop it, and give this source another name, so that it is captured anew", (drop,))]
    if not slot.failover:
        return [Finding(here, f"slot {name} does not survive a failover", "drop it while the connector is stopped", (drop,))]
    return []


def _foreign_consumer(connection: psycopg.Connection[Any], pipeline: Pipeline, endpoints: Endpoints) -> list[Finding]:
    """Whether the slot is read although this platform has no such connector; nothing while Kafka Connect does not answer."""
    row = connection.execute(
        "SELECT s.active_pid, a.client_addr FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid "
        "WHERE s.slot_name = %s AND s.active AND coalesce(a.application_name, '') IN ('', %s)",
        (pipeline.slot, DEBEZIUM),
    ).fetchone()
    if row is None:
        return []
    try:
        state, _ = connector_state(pipeline, endpoints)
    except (httpx.HTTPError, KeyError):
        return []
    if state != "MISSING":
        return []
    what = f"slot {pipeline.slot} is read by process {row[0]} from {row[1] or 'its own machine'}, and here is no connector"
    return [Finding(("source",), f"{what} {pipeline.connector}", "end that consumer, or give this source another name")]


def _captured_before(connection: psycopg.Connection[Any], pipeline: Pipeline, endpoints: Endpoints) -> list[Finding]:
    """What is at odds with what the connector has captured already; nothing while Kafka Connect does not answer."""
    try:
        if not has_captured(pipeline, endpoints):
            return []
        changed = changed_selection(pipeline, endpoints)
    except (httpx.HTTPError, KeyError):
        return []
    anew = "give this source another name, so that it is captured anew"
    what = f"its columns, exclude, mask or where has changed since connector {pipeline.connector} captured it"
    found = [Finding(("tables", table), what, f"take the change back, or {anew}") for table in changed]
    if not connection.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", (pipeline.slot,)).fetchone():
        what = f"slot {pipeline.slot} is gone, and with it the changes since connector {pipeline.connector} read from it"
        found.append(Finding(("source",), what, anew))
    return found


_RIGHTS = """
SELECT n.nspname || '.' || c.relname AS name, pg_get_userbyid(c.relowner) AS owner, current_user AS role,
       (SELECT rolsuper FROM pg_roles r WHERE r.oid = c.relowner) AS by_superuser,
       c.relreplident = 'f' AND EXISTS (
           SELECT 1 FROM pg_publication_tables p
           WHERE p.pubname = %(publication)s AND p.schemaname = n.nspname AND p.tablename = c.relname
       ) OR pg_has_role(c.relowner, 'USAGE') AS published,
       has_table_privilege(c.oid, 'SELECT') AS reads,
       has_table_privilege(c.oid, 'UPDATE') AS updates, row_security_active(c.oid) AS row_security
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname || '.' || c.relname = ANY(%(names)s) ORDER BY 1
"""


def _rights(connection: psycopg.Connection[Any], pipeline: Pipeline) -> list[Finding]:
    names = [*pipeline.tables, HEARTBEAT_TABLE]
    asked = {"publication": pipeline.publication, "names": names}
    found = []
    for table in connection.cursor(row_factory=namedtuple_row).execute(_RIGHTS, asked):
        heartbeat = table.name == HEARTBEAT_TABLE
        keys = ("connection",) if heartbeat else ("tables", table.name)
        told = f"table {HEARTBEAT_TABLE} " if heartbeat else ""
        role = _name(table.role)
        if not table.published:
            giving = f"ALTER TABLE {quoted(table.name)} OWNER TO {role};"
            statement = giving if table.by_superuser else f"GRANT {_name(table.owner)} TO {role};"
            what = f"{told}belongs to {table.owner}: role {table.role} may neither publish it nor set its REPLICA IDENTITY"
            found.append(Finding(keys, what, f"{statement.rstrip(';')}, or connect as its owner", (statement,)))
            continue
        for has, statement in (
            (table.reads, f"GRANT SELECT ON {quoted(table.name)} TO {role};"),
            (table.updates or not heartbeat, f"GRANT UPDATE ON {quoted(table.name)} TO {role};"),
        ):
            if not has:
                found.append(Finding(keys, f"{told}may not be used by role {table.role}", statement.rstrip(";"), (statement,)))
        if table.row_security:
            statement = f"ALTER ROLE {role} BYPASSRLS;"
            what = f"{told}hides rows from role {table.role} by row level security"
            found.append(Finding(keys, what, statement.rstrip(";"), (statement,)))
    return found


def _name(name: str) -> str:
    """``name`` as SQL writes it: in quotes only where it needs them."""
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else sql.Identifier(name).as_string(None)
