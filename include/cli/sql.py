"""``sql``: one statement on one engine, its result as a table, JSON or CSV."""

from __future__ import annotations

import csv
import datetime as dt
import json
import re
import socket
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from rich.table import Table
from rich.text import Text

from include.cli.console import ME, NOT_HEALTHY, CliError, out, say, seconds
from include.platform.catalog import SERVICES
from include.platform.endpoints import Endpoints

CONNECTIONS = {
    "postgres": "flights_db",
    "trino": "shudl_trino",
    "clickhouse": "shudl_clickhouse",
    "flink": "shudl_flink_gateway",
}
"""Engine, as people call it → the connection through which its statements go."""


@dataclass(frozen=True)
class Answer:
    """A result set; without columns for statements that return none, whose outcome is ``note``."""

    columns: list[str]
    rows: list[tuple[Any, ...]]
    note: str = ""


def _postgres(query: str, endpoints: Endpoints, timeout_s: int) -> Answer:
    import psycopg

    options = f"-c statement_timeout={timeout_s * 1000}"
    with psycopg.connect(endpoints["flights_db"].conninfo, options=options, application_name="shudl sql") as connection:
        cursor = connection.execute(query)
        if cursor.description is None:
            return Answer([], [], cursor.statusmessage or "done")
        return Answer([column.name for column in cursor.description], cursor.fetchall())


def _trino(query: str, endpoints: Endpoints, timeout_s: int) -> Answer:
    from include.platform.trino import connect

    with connect(endpoints, "lake", timeout_s) as connection:
        cursor = connection.cursor()
        try:
            cursor.execute(query.strip().rstrip(";"))
            rows = cursor.fetchall()
        except KeyboardInterrupt:
            cursor.cancel()
            raise
        return Answer(
            [column[0] for column in cursor.description or ()], [tuple(row) for row in rows], cursor.update_type or "done"
        )


def _clickhouse(query: str, endpoints: Endpoints, timeout_s: int) -> Answer:
    from include.serving.clickhouse import connect

    with connect(endpoints, timeout_s) as client:
        result = client.query(query.strip().rstrip(";"))
        return Answer(list(result.column_names), [tuple(row) for row in result.result_rows])


def _flink(query: str, endpoints: Endpoints, timeout_s: int) -> Answer:
    from include.lake.catalog import Lake
    from include.platform.flink import SqlGateway

    with SqlGateway(
        endpoints["shudl_flink_gateway"].url, {"execution.runtime-mode": "batch", "pipeline.name": "shudl sql"}
    ) as gateway:
        gateway.execute(Lake.from_endpoints(endpoints).flink_catalog())
        gateway.execute("USE CATALOG lake")
        result = gateway.execute(query.strip().rstrip(";"), timeout_s)
    return Answer(result.columns, [tuple(row) for row in result.rows])


ENGINES: dict[str, Callable[[str, Endpoints, int], Answer]] = {
    "postgres": _postgres,
    "trino": _trino,
    "clickhouse": _clickhouse,
    "flink": _flink,
}


def run(engine: str, query: str, endpoints: Endpoints, timeout_s: int = 300) -> Answer:
    """Run one statement. Raises :class:`CliError` with the engine's own first cause; code 3 when it does not run."""
    conn_id = CONNECTIONS[engine]
    endpoint = endpoints[conn_id]
    try:
        with closing(socket.create_connection((endpoint.host, endpoint.port), timeout=3)):
            pass
    except OSError:
        title = next(svc.title for svc in SERVICES if svc.conn_id == conn_id)
        raise CliError(f"{title} does not answer at {endpoint.address}; start it with {ME} up", NOT_HEALTHY) from None
    try:
        return ENGINES[engine](query, endpoints, timeout_s)
    except Exception as error:
        raise CliError(f"{engine}: {cause(error)}") from error


def cause(error: Exception) -> str:
    """An engine's reason in one line, without the client's decoration."""
    text = getattr(error, "message", None) or str(error)  # Trino keeps the bare text in .message
    if (diag := getattr(error, "diag", None)) is not None and diag.message_primary:  # PostgreSQL
        text = " — ".join(part for part in (diag.message_primary, diag.message_detail, diag.message_hint) if part)
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    return re.sub(r"^([\w$]+\.)+[\w$]+: ", "", lines[0])[:600] if lines else type(error).__name__


def unique(columns: list[str]) -> list[str]:
    """Column names for JSON objects: a repeated one gets ``_2``, ``_3``, …"""
    seen: dict[str, int] = {}
    names = []
    for column in columns:
        seen[column] = seen.get(column, 0) + 1
        names.append(column if seen[column] == 1 else f"{column}_{seen[column]}")
    return names


def plain(value: Any) -> Any:
    """A value as JSON can hold it: decimals and times as text, bytes as hexadecimal digits."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if isinstance(value, (Decimal, dt.date, dt.time, dt.datetime, dt.timedelta)):
        return str(value)
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def show(answer: Answer, form: str, took_s: float) -> None:
    """Print a result; ``form`` is ``table``, ``json`` or ``csv``."""
    columns = answer.columns
    if form == "json":
        print(
            json.dumps(
                [dict(zip(unique(columns), map(plain, row), strict=True)) for row in answer.rows], indent=2, ensure_ascii=False
            )
        )
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([["" if value is None else plain(value) for value in row] for row in answer.rows])
    elif not columns:
        say(f"{answer.note} [dim]({seconds(took_s)})[/]")
    else:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for index, column in enumerate(columns):
            numbers = any(isinstance(row[index], (int, float, Decimal)) for row in answer.rows[:20])
            table.add_column(Text(column), justify="right" if numbers else "left", overflow="fold")
        for row in answer.rows:
            table.add_row(*(Text("NULL", style="dim") if value is None else Text(str(plain(value))) for value in row))
        out.print(table)
        say(f"[dim]{len(answer.rows)} row{'s' * (len(answer.rows) != 1)} in {seconds(took_s)}[/]")
