"""PostgreSQL, Iceberg and ClickHouse as stores of the same rows, each read by its own engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from queue import SimpleQueue
from typing import Any

import psycopg
from psycopg import sql

from include.cdc.pipelines import LSN, OFFSET, OPERATION, Pipeline
from include.cdc.selection import SALT_SETTING, mask_salt
from include.cdc.source import SourceTable
from include.platform import trino
from include.platform.endpoints import Endpoints
from include.proof.dialects import CLICKHOUSE, POSTGRES, TRINO, Dialect, Key, key_columns
from include.serving import clickhouse
from include.serving.publish import SERVING

KEYS_PER_READ = 5000

Rows = Iterable[Sequence[Any]]


class ProofError(RuntimeError):
    """A store that cannot be read; the text names it, the table and the engine's reason."""


@dataclass(frozen=True)
class Bucket:
    """``rows`` rows and the sums of the two halves of their hashes."""

    rows: int
    first: int
    second: int


@dataclass(frozen=True)
class Row:
    """The canonical text of each column, None for NULL; ``mark`` changes whenever the source writes the row.

    In the lake it is the LSN of the row's last change.
    """

    texts: tuple[str | None, ...]
    mark: Any = None


@dataclass(frozen=True)
class Store:
    """One engine's view of the tables. ``query`` runs a statement; ``relation`` names a table in the engine's SQL."""

    name: str
    dialect: Dialect
    query: Callable[[str], Rows]
    relation: Callable[[SourceTable], str]
    key_types: Callable[[SourceTable], Mapping[str, str]] = lambda table: {}
    """The types of a table's key columns; none where keys are to be found by their text."""

    def buckets(self, table: SourceTable, count: int) -> dict[int, Bucket]:
        """The table in ``count`` buckets, empty ones left out; one scan."""
        rows = self.read(table, self.dialect.buckets(table, self.relation(table), count))
        return {int(number): Bucket(int(n), int(first), int(second)) for number, n, first, second in rows}

    def listing(self, table: SourceTable, count: int, chosen: Sequence[int]) -> Iterator[tuple[Key, int]]:
        """Key and hash of every row of the ``chosen`` buckets of ``count``; one scan."""
        for *key, value in self.read(table, self.dialect.listing(table, self.relation(table), count, chosen)):
            yield tuple(key), int(value)

    def rows(self, table: SourceTable, keys: Sequence[Key]) -> dict[Key, list[Row]]:
        """The rows with these keys; no entry for a key that has none."""
        found: dict[Key, list[Row]] = {}
        types = self.key_types(table) if keys else {}
        places = [[column.name for column in table.columns].index(name) for name in table.key]
        for start in range(0, len(keys), KEYS_PER_READ):
            chunk = keys[start : start + KEYS_PER_READ]
            for *texts, mark in self.read(table, self.dialect.rows(table, self.relation(table), types, chunk)):
                found.setdefault(tuple(texts[place] for place in places), []).append(Row(tuple(texts), mark))
        return found

    def read(self, table: SourceTable, statement: str) -> Rows:
        """The rows of a statement about the table. Raises :class:`ProofError`."""
        try:
            yield from self.query(statement)
        except Exception as error:
            text = getattr(error, "message", None) or str(error)
            raise ProofError(f"{table.name} in {self.name}: {text.strip().splitlines()[0][:500]}") from error


def _session(pipeline: Pipeline, endpoints: Endpoints, timeout_s: float, **more: Any) -> psycopg.Connection:
    """A read-only session in which canonical texts are rendered as :mod:`include.cdc.types` needs it."""
    salt = mask_salt(pipeline, endpoints)
    wanted = {
        "timezone": "UTC",
        "datestyle": "ISO",
        "standard_conforming_strings": "on",
        "default_transaction_read_only": "on",
        "statement_timeout": int(timeout_s * 1000),
        "lock_timeout": int(timeout_s * 1000),
        **({SALT_SETTING: salt} if salt else {}),
    }
    options = " ".join(f"-c {name}={value}" for name, value in wanted.items())
    conninfo = endpoints[pipeline.connection].conninfo
    return psycopg.connect(conninfo, autocommit=True, options=options, application_name="shudl proof", **more)


def _castable(table: SourceTable) -> bool:
    return all(column.carried.castable for column in key_columns(table))


def _postgres(pipeline: Pipeline, query: Callable[[str], Rows]) -> Store:
    def relation(table: SourceTable) -> str:
        name, where = POSTGRES.name(*table.name.split(".")), pipeline.tables[table.name].where
        return f"(SELECT *, xmin FROM {name} WHERE ({where}\n)) AS captured" if where else name

    return Store(
        "postgres",
        POSTGRES,
        query,
        relation,
        key_types=lambda table: {column.name: column.type_name for column in key_columns(table)} if _castable(table) else {},
    )


def postgres(pipeline: Pipeline, endpoints: Endpoints, timeout_s: float) -> Store:
    """The source as it is at each statement: of the captured tables, the captured rows."""

    def query(statement: str) -> Rows:
        with _session(pipeline, endpoints, timeout_s) as connection:
            yield from connection.execute(statement)

    return _postgres(pipeline, query)


@dataclass(frozen=True)
class Snapshot:
    """The source as it was at ``lsn``. Its store may be used from ``connections`` threads at once.

    It holds what was committed before ``lsn``. ``running``: ids (32 bits) of the transactions that had begun but not
    committed by then, among others that began soon after.
    """

    lsn: str
    running: tuple[int, ...]
    store: Store


@contextmanager
def snapshot(pipeline: Pipeline, endpoints: Endpoints, connections: int, timeout_s: float) -> Iterator[Snapshot]:
    """A snapshot of PostgreSQL at a known LSN, exported by a temporary slot that is gone before the first read.

    Waits for transactions that write when it begins; raises :class:`ProofError` when they last longer than ``timeout_s``.
    """
    readers: list[psycopg.Connection] = []
    free: SimpleQueue[psycopg.Connection] = SimpleQueue()

    def query(statement: str) -> Rows:
        connection = free.get()
        try:
            return connection.execute(statement).fetchall()
        finally:
            free.put(connection)

    try:
        # Replication connections know only the simple protocol, which psycopg's client-side cursor speaks.
        replication: dict[str, Any] = {"replication": "database", "cursor_factory": psycopg.ClientCursor}
        with _session(pipeline, endpoints, timeout_s, **replication) as exporter:
            pid = exporter.info.backend_pid
            try:
                _, lsn, name, _ = exporter.execute(
                    f"CREATE_REPLICATION_SLOT shudl_proof_{pid} TEMPORARY LOGICAL pgoutput (SNAPSHOT 'export')"
                ).fetchone()
            except psycopg.errors.LockNotAvailable:
                raise ProofError(
                    f"no snapshot of the source within {timeout_s:.0f} s: a transaction that writes has not ended; "
                    "see pg_stat_activity for the oldest backend_xid"
                ) from None
            except psycopg.Error as error:
                raise ProofError(f"no snapshot of the source: {str(error).strip()}") from error
            for _ in range(connections):
                readers.append(reader := _session(pipeline, endpoints, timeout_s))
                reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                reader.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(name))
                free.put(reader)
        ((xmax, running),) = query(
            "SELECT pg_snapshot_xmax(s)::text::bigint, ARRAY(SELECT xid::text::bigint FROM pg_snapshot_xip(s) AS xid) "
            "FROM pg_current_snapshot() AS s"
        )
        with _session(pipeline, endpoints, timeout_s) as latest:
            (next_xid,) = latest.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        xids = (xid & 0xFFFFFFFF for xid in (*running, *range(xmax, next_xid)))
        yield Snapshot(lsn, tuple(xids), _postgres(pipeline, query))
    finally:
        for reader in readers:
            reader.close()


def iceberg(pipeline: Pipeline, endpoints: Endpoints, timeout_s: float, catalog: str = "lake") -> Store:
    """The pipeline's mirrors, read by Trino. ``catalog``: ``lake`` is branch main, ``published`` the branch of that name."""
    return _trino("iceberg", endpoints, timeout_s, catalog, lambda table: _mirror(catalog, pipeline, table))


def _mirror(catalog: str, pipeline: Pipeline, table: SourceTable) -> str:
    return TRINO.name(catalog, pipeline.namespace, pipeline.iceberg_name(table.name))


def changelog(pipeline: Pipeline, endpoints: Endpoints, timeout_s: float) -> Store:
    """The pipeline's changelogs folded by key, read by Trino: of each key the last row, unless it was deleted."""

    def fold(table: SourceTable) -> str:
        key, columns = (", ".join(TRINO.name(c.lake_name) for c in those) for those in (key_columns(table), table.columns))
        last = f"row_number() OVER (PARTITION BY {key} ORDER BY {OFFSET} DESC)"
        numbered = f"SELECT {columns}, {LSN}, {OPERATION}, {last} AS _nth FROM {changelog_relation(pipeline, table)}"
        return f"(SELECT {columns}, {LSN} FROM ({numbered}) WHERE _nth = 1 AND {OPERATION} <> 'd') folded"

    return _trino("changelog", endpoints, timeout_s, "lake", partial(changelog_relation, pipeline), fold)


def changelog_relation(pipeline: Pipeline, table: SourceTable) -> str:
    """The changelog of ``table`` in Trino's SQL."""
    return TRINO.name("lake", pipeline.namespace, pipeline.changelog_name(table.name))


def _trino(
    name: str,
    endpoints: Endpoints,
    timeout_s: float,
    catalog: str,
    stored: Callable[[SourceTable], str],
    relation: Callable[[SourceTable], str] | None = None,
) -> Store:
    """``stored`` names the table in the lake, ``relation`` what is read of it, if not all as it is."""

    def query(statement: str) -> Rows:
        with trino.connect(endpoints, catalog, timeout_s) as connection:
            cursor = connection.cursor()
            cursor.execute(statement)
            yield from iter(cursor.fetchone, None)

    @cache
    def key_types(table: SourceTable) -> dict[str, str]:
        if not _castable(table):
            return {}
        types = {column: kind for column, kind, *_ in query(f"SHOW COLUMNS FROM {stored(table)}")}
        return {column.name: types[column.lake_name] for column in key_columns(table)}

    return Store(name, replace(TRINO, mark=LSN), query, relation or stored, key_types)


def served(pipeline: Pipeline, endpoints: Endpoints, timeout_s: float) -> Store:
    """The copies of the pipeline's mirrors in ClickHouse."""

    def query(statement: str) -> Rows:
        with clickhouse.connect(endpoints, timeout_s) as client:
            return client.query(statement).result_rows

    def relation(table: SourceTable) -> str:
        return CLICKHOUSE.name(SERVING, pipeline.iceberg_name(table.name))

    return Store("clickhouse", CLICKHOUSE, query, relation)
