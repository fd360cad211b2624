"""The engine: connections, one query's settings, and the three ways to run a statement.

Everything here blocks: call it from worker threads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import chdb
from chdb import _chdb

from include.serving.chdb_front import sql
from include.serving.chdb_front.errors import INTO_OUTFILE_NOT_ALLOWED, SYNTAX_ERROR, ClickHouseError

_KILL_MARK = b"Settings['log_comment']"
"""The engine makes its own query ids; ours travel in this setting, which system.processes shows."""

_SESSION_DEFAULTS = {"implicit_select": "0", "allow_introspection_functions": "0"}
"""Settings in which the engine differs from a server, put back."""


@dataclass
class Summary:
    """What a query read and wrote, as the X-ClickHouse-Summary header gives it."""

    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    result_rows: int = 0
    elapsed_ns: int = 0

    @classmethod
    def of(cls, result: Any) -> Summary:
        return cls(
            read_rows=result.storage_rows_read(),
            read_bytes=result.storage_bytes_read(),
            written_rows=result.rows_written(),
            written_bytes=result.bytes_written(),
            result_rows=result.rows_read(),
            elapsed_ns=int(result.elapsed() * 1e9),
        )


@dataclass(frozen=True)
class Context:
    """What a request says about its query beside the text."""

    query_id: str
    database: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """What a statement is to the engine's parser."""

    read_only: bool
    known: bool
    keyword: bytes

    @property
    def streams(self) -> bool:
        """Whether its result can be written to a file while the query runs."""
        return self.read_only and self.keyword != b"EXPLAIN"


class Engine:
    """One engine over one data path. A second process on the same path is refused with RuntimeError."""

    def __init__(self, path: Path, config_file: Path | None = None, memory_bytes: int = 1_500_000_000) -> None:
        _chdb.set_signal_handlers_enabled(0)
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        options = {"max_server_memory_usage": str(memory_bytes), **_SESSION_DEFAULTS}
        if config_file:
            options["config-file"] = str(config_file)
        self._target = f"{path}?{urlencode(options, safe='/')}"
        try:
            self._control = self.connect()
        except RuntimeError as error:
            raise RuntimeError(
                f"{path}: the engine cannot open it ({_owner(path)}); stop the other process or choose another --path"
            ) from error
        self.version, self.timezone = self._control.query("SELECT version(), timezone()", "TSV").bytes().decode().split()

    def connect(self) -> Any:
        """A new connection. Each runs one statement at a time; several run in parallel."""
        return chdb.connect(self._target)

    def close(self) -> None:
        """Stop the engine; every connection must be closed before."""
        self._control.close()

    def kill(self, condition: bytes) -> None:
        """Ask the queries that match the SQL ``condition`` over system.processes to stop; do not wait for them."""
        connection = self.connect()
        try:
            connection.query(b"KILL QUERY WHERE " + condition + b" ASYNC", "Null")
        finally:
            connection.close()

    def kill_query(self, query_id: str) -> None:
        self.kill(_KILL_MARK + b" = " + sql.quote(query_id))

    def kind(self, text: bytes) -> Kind:
        """Raises ClickHouseError for what a server refuses too: no statement, several, and files written on its side."""
        keyword = sql.keyword(text)
        if not keyword:
            raise ClickHouseError(SYNTAX_ERROR, "Empty query")
        found = self._control._conn.classify_query(text)
        if found["statement_count"] > 1:
            raise ClickHouseError(SYNTAX_ERROR, "Multi-statements are not allowed")
        if sql.writes_outfile(text):
            raise ClickHouseError(INTO_OUTFILE_NOT_ALLOWED, "INTO OUTFILE is not allowed")
        name = found["query_class"].name
        return Kind(name == "READ_ONLY", name != "UNKNOWN", keyword)


def _owner(path: Path) -> str:
    try:
        return f"{path / 'status'} says: " + ", ".join((path / "status").read_text().splitlines())
    except OSError:
        return "its files cannot be read"


@contextmanager
def _applied(connection: Any, context: Context, restore: bool) -> Iterator[None]:
    """Settings, parameters and database of ``context`` on ``connection``; ``restore`` puts back what was before."""
    undo = _snapshot(connection, context) if restore else []
    values = {**context.settings, "log_comment": context.query_id}
    values |= {f"param_{name}": value for name, value in context.parameters.items()}
    try:
        connection.query(b"SET " + b", ".join(sql.quote_name(n) + b" = " + sql.quote(v) for n, v in values.items()), "Null")
        if context.database:
            connection.query(b"USE " + sql.quote_name(context.database), "Null")
        yield
    finally:
        for statement in undo:
            connection.query(statement, "Null")


def _snapshot(connection: Any, context: Context) -> list[bytes]:
    undo = []
    if context.settings:
        names = b", ".join(sql.quote(name) for name in context.settings)
        rows = connection.query(
            b"SELECT name, value, changed FROM system.settings WHERE name IN (" + names + b")", "JSONCompactEachRow"
        ).bytes()
        for name, value, changed in map(json.loads, rows.splitlines()):
            undo.append(b"SET " + sql.quote_name(name) + b" = " + (sql.quote(value) if changed else b"DEFAULT"))
    if context.database:
        current = connection.query("SELECT currentDatabase()", "TSVRaw").bytes().decode().rstrip("\n")
        undo.append(b"USE " + sql.quote_name(current))
    return undo


def read(connection: Any, text: bytes, context: Context, restore: bool) -> Summary:
    """Run a reading statement whose result goes to a file that it names."""
    try:
        with _applied(connection, context, restore):
            return Summary.of(connection.query(text, "Null"))
    except RuntimeError as error:
        raise ClickHouseError.from_engine(error) from None


def run(connection: Any, text: bytes, default_format: str, context: Context, restore: bool) -> tuple[bytes, Summary]:
    """Run any other statement; its result, if it has one, and its summary."""
    words = [token.word for token, _ in zip(sql.tokens(text), range(2), strict=False)]
    if words == [b"KILL", b"QUERY"]:
        text = sql.replace_query_id(text, _KILL_MARK)
    elif words[:1] in ([b"USE"], [b"SET"]):
        context, restore = Context(context.query_id), False
    try:
        with _applied(connection, context, restore):
            result = connection.query(text, default_format)
            return result.bytes(), Summary.of(result)
    except RuntimeError as error:
        raise ClickHouseError.from_engine(error) from None


def insert(
    connection: Any, statement: bytes, data_format: str, chunks: Iterable[bytes], context: Context, restore: bool
) -> Summary:
    """Run an INSERT over ``chunks`` of data. Any error, also of the iterable, ends it without a commit of what is left."""
    try:
        with _applied(connection, context, restore):
            with connection.send_insert(statement.decode(), data_format) as stream:
                for chunk in chunks:
                    stream.append(chunk)
                result = stream.finish()
            rows, size = result.rows_written, result.bytes_written
            return Summary(rows, size, rows, size, elapsed_ns=int(result.elapsed * 1e9))
    except RuntimeError as error:
        raise ClickHouseError.from_engine(error) from None
