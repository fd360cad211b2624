"""The lake's side of landing: data files that are written while a file is read, and the one commit that makes them rows.

Rows, their columns and the ledger's line go into the lake by **one** commit of several tables (Nessie's
``transactions/commit``, which asserts the snapshot of each): there is no moment at which one is there without the other.
"""

from __future__ import annotations

import json
import os
import queue
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    TableAlreadyExistsError,
)
from pyiceberg.expressions import AlwaysTrue, EqualTo
from pyiceberg.io.pyarrow import compute_statistics_plan, data_file_statistics_from_parquet_metadata, parquet_path_to_id_mapping
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.schema import Schema
from pyiceberg.table import (
    CommitTableRequest,
    CreateTableTransaction,
    StagedTable,
    Table,
    TableIdentifier,
    Transaction,
)
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.update import AssertCreate, AssertTableUUID
from pyiceberg.typedef import Record
from pyiceberg.types import IntegerType, LongType, NestedField, StringType, TimestamptzType

from include.ingest.deadletters import IngestError
from include.lake.catalog import existing

LEDGER = "raw.landing_files"
PROPERTIES = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    "write.metadata.metrics.column._file": "full",
}
FOLDER = "shudl.landing.folder"
"""Property of a table: the folder whose files it holds."""
ROW_GROUP = 64 << 20
"""Bytes in memory that become a row group."""
LEDGER_FILES = 100
"""Data files of the ledger that become one."""
TRIES = 12
WRITERS = min(4, len(os.sched_getaffinity(0)))

_LEDGER = Schema(
    *(
        NestedField(number, name, kind, required=False)
        for number, (name, kind) in enumerate(
            (
                ("path", StringType()),
                ("etag", StringType()),
                ("version", IntegerType()),
                ("target", StringType()),
                ("table_uuid", StringType()),
                ("size", LongType()),
                ("modified", TimestamptzType()),
                ("rows_read", LongType()),
                ("rows_written", LongType()),
                ("dead_letters", LongType()),
                ("read_as", StringType()),
                ("run", StringType()),
                ("loaded_at", TimestamptzType()),
            ),
            start=1,
        )
    )
)


@dataclass(frozen=True)
class Landed:
    """A line of the ledger: a version of a file, and what became of it."""

    path: str
    etag: str
    version: int
    target: str
    table_uuid: str
    size: int
    modified: datetime
    rows_read: int
    rows_written: int
    dead_letters: int
    read_as: str
    run: str
    loaded_at: datetime


@dataclass
class Written:
    """The rows of one file, in data files that no table has yet, and the line that the ledger gets with them."""

    landed: Landed
    columns: pa.Schema
    table: Table | None = None
    files: list[DataFile] = field(default_factory=list)
    replaces: bool = False


def staged(catalog: RestCatalog, name: str, schema: pa.Schema, properties: Mapping[str, str]) -> StagedTable:
    """A table that :func:`commit` makes, together with its first rows."""
    return catalog.create_table_transaction(name, schema, properties={**PROPERTIES, **properties})._table


def transaction_of(table: Table) -> Transaction:
    return CreateTableTransaction(table) if isinstance(table, StagedTable) else table.transaction()


def ledger(catalog: RestCatalog, wait_s: float = 20) -> Table:
    """The ledger. It always has a snapshot: so two writers never both take theirs for the first, which Nessie would bear."""
    table = existing(catalog, LEDGER)
    if table is None:
        try:
            catalog.create_namespace("raw")
        except NamespaceAlreadyExistsError:
            pass
        try:
            table = catalog.create_table(LEDGER, _LEDGER, properties=PROPERTIES)
            table.append(_LEDGER.as_arrow().empty_table())
            return table
        except TableAlreadyExistsError:
            table = catalog.load_table(LEDGER)
    deadline = time.monotonic() + wait_s
    while table.metadata.current_snapshot_id is None:
        if time.monotonic() > deadline:  # its maker was killed in between
            table.append(_LEDGER.as_arrow().empty_table())
            break
        time.sleep(0.5)
        table = table.refresh()
    return table


def landed(table: Table, target: str = "", path: str = "") -> dict[str, Landed]:
    """The newest version of each file in the ledger, of one target or path where one is given."""
    chosen = EqualTo("path", path) if path else EqualTo("target", target) if target else AlwaysTrue()
    found: dict[str, Landed] = {}
    for row in table.scan(chosen).to_arrow().to_pylist():
        if row["path"] not in found or found[row["path"]].version < row["version"]:
            found[row["path"]] = Landed(**row)
    return found


def arrow_types(table: Table) -> dict[str, pa.DataType]:
    """The table's columns, in its order, with the Arrow types that rows are made of."""
    plain = {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}
    return {field.name: plain.get(field.type, field.type) for field in table.schema().as_arrow()}


class Writers:
    """Data files of ``table`` with the schema ``schema``, written by several threads at once: a file for each."""

    def __init__(self, table: Table, schema: Schema, constants: Mapping[str, pa.Scalar]) -> None:
        self._table, self._schema, self._constants = table, schema, constants
        self._idle: queue.SimpleQueue[_Writer] = queue.SimpleQueue()
        self._all = [_Writer(self) for _ in range(WRITERS)]
        for writer in self._all:
            self._idle.put(writer)

    def write(self, rows: pa.Table) -> None:
        """Waits for a writer that is idle. Thread-safe."""
        writer = self._idle.get()
        try:
            writer.write(rows)
        finally:
            self._idle.put(writer)

    def close(self) -> list[DataFile]:
        return [made for writer in self._all if (made := writer.close())]

    def drop(self) -> None:
        """End and remove what was written."""
        for writer in self._all:
            writer.drop()


class _Writer:
    def __init__(self, owner: Writers) -> None:
        self._owner = owner
        self._rows: list[pa.Table] = []
        self._bytes = 0
        self._path = ""
        self._stream: Any = None
        self._parquet: pq.ParquetWriter | None = None
        self._schema: Schema | None = None

    def write(self, rows: pa.Table) -> None:
        self._rows.append(rows)
        self._bytes += rows.nbytes
        if self._bytes >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        rows = self._with_constants(pa.concat_tables(self._rows).combine_chunks())
        self._rows, self._bytes = [], 0
        if self._parquet is None:
            self._open(rows)
        self._parquet.write_table(rows, row_group_size=max(len(rows), 1))

    def _with_constants(self, rows: pa.Table) -> pa.Table:
        for name, value in self._owner._constants.items():
            column = pa.repeat(value, len(rows))
            if pa.types.is_string(value.type):
                column = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), len(rows)), pa.array([value.as_py()]))
            rows = rows.append_column(name, column)
        ids = {column.name: column.field_id for column in self._owner._schema.fields}
        fields = [column.with_metadata({"PARQUET:field_id": str(ids[column.name])}) for column in rows.schema]
        return rows.cast(pa.schema(fields))

    def _open(self, rows: pa.Table) -> None:
        table = self._owner._table
        provider = load_location_provider(table.metadata.location, table.metadata.properties)
        self._path = provider.new_data_location(f"{uuid.uuid4()}.parquet")
        self._stream = table.io.new_output(self._path).create()
        present = set(rows.schema.names)
        self._schema = Schema(*(column for column in self._owner._schema.fields if column.name in present))
        numbered = [name for name in rows.schema.names if name == "_line"]
        self._parquet = pq.ParquetWriter(
            self._stream,
            rows.schema,
            compression="zstd",
            store_schema=False,
            store_decimal_as_integer=True,
            use_dictionary=[name for name in rows.schema.names if name not in numbered],
            column_encoding=dict.fromkeys(numbered, "DELTA_BINARY_PACKED"),
        )

    def close(self) -> DataFile | None:
        self._flush()
        if self._parquet is None:
            return None
        self._parquet.close()
        self._stream.close()
        metadata = self._parquet.writer.metadata
        statistics = data_file_statistics_from_parquet_metadata(
            parquet_metadata=metadata,
            stats_columns=compute_statistics_plan(self._schema, self._owner._table.metadata.properties),
            parquet_column_mapping=parquet_path_to_id_mapping(self._schema),
        )
        return DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=self._path,
            file_format=FileFormat.PARQUET,
            partition=Record(),
            file_size_in_bytes=len(self._owner._table.io.new_input(self._path)),
            sort_order_id=None,
            spec_id=self._owner._table.metadata.default_spec_id,
            equality_ids=None,
            key_metadata=None,
            **statistics.to_serialized_dict(),
        )

    def drop(self) -> None:
        self._rows = []
        if self._stream is None:
            return
        for end in (self._parquet.close, self._stream.close, lambda: self._owner._table.io.delete(self._path)):
            try:
                end()
            except Exception:  # what stays is an orphan, which no table has
                pass


def widen(transaction: Transaction, columns: pa.Schema) -> Schema:
    """Add the ``columns`` that the table has not, in ``transaction``; the schema then."""
    known = {field.name for field in transaction.table_metadata.schema().fields}
    if any(column.name not in known for column in columns):
        with transaction.update_schema() as update:
            update.union_by_name(pa.schema([column for column in columns if column.name not in known]))
    return transaction.table_metadata.schema()


def commit(catalog: RestCatalog, target: str, written: list[Written], path_column: str) -> list[Landed]:
    """Make what was written rows of ``target`` and lines of the ledger, all or nothing; the lines that are new.

    A file that the ledger has by now, since another run was quicker, is left out.
    """
    for attempt in range(TRIES):
        books = ledger(catalog)
        there = {(line.path, line.etag, line.table_uuid) for line in landed(books, target).values()}
        new = [item for item in written if (item.landed.path, item.landed.etag, item.landed.table_uuid) not in there]
        if not new:
            return []
        lines = _lines(books, [item.landed for item in new])
        if _posted(catalog, [*_rows(catalog, target, new, path_column), (LEDGER, lines)], attempt):
            return [item.landed for item in new]
    raise AssertionError


def append(catalog: RestCatalog, target: str, make: Callable[[Table], list[Written]]) -> list[Written]:
    """Make what ``make(table)`` has written rows of ``target``; it is asked again when another commits meanwhile."""
    for attempt in range(TRIES):
        written = make(catalog.load_table(target))
        changes = _rows(catalog, target, written, "_file") if written else []
        if not changes or _posted(catalog, changes, attempt):
            return written
    raise AssertionError


def _posted(catalog: RestCatalog, changes: list[tuple[str, Transaction]], attempt: int) -> bool:
    """Whether the commit succeeded; raises CommitFailedException when it was the last try."""
    try:
        _post(catalog, changes)
    except CommitFailedException:
        if attempt == TRIES - 1:
            raise
        time.sleep(min(3.0, 0.1 * 2**attempt))
        return False
    return True


def _rows(catalog: RestCatalog, target: str, new: list[Written], path_column: str) -> list[tuple[str, Transaction]]:
    """The change of ``target``; none when there are no rows and no columns to add."""
    if not any(item.files or item.replaces for item in new):
        return []
    table = existing(catalog, target) or new[0].table
    if any(item.landed.table_uuid != str(table.metadata.table_uuid) for item in new):
        raise IngestError(f"{target} was made anew while {new[0].landed.path} was loaded; run the DAG again")
    transaction = transaction_of(table)
    for item in new:
        schema = widen(transaction, item.columns)
        _same_ids(target, schema, item)
    for item in new:
        if item.replaces and not isinstance(table, StagedTable):
            transaction.delete(EqualTo(path_column, item.landed.path))
    files = [file for item in new for file in item.files]
    if files:
        with transaction.update_snapshot(snapshot_properties={"shudl.run": new[0].landed.run}).fast_append() as append:
            for file in files:
                append.append_data_file(file)
    return [(target, transaction)] if transaction._updates else []


def _same_ids(target: str, schema: Schema, item: Written) -> None:
    """Raises :class:`IngestError` when somebody changed the table's columns since the data files were written."""
    for column in item.columns:
        wanted = int(column.metadata[b"PARQUET:field_id"]) if column.metadata else None
        if wanted is not None and schema.find_field(column.name).field_id != wanted:
            raise IngestError(f"{target}: the column {column.name} was changed while {item.landed.path} was loaded; run it again")


def _lines(books: Table, lines: Iterable[Landed]) -> Transaction:
    rows = pa.Table.from_pylist([vars(line) for line in lines], schema=_LEDGER.as_arrow())
    transaction = books.transaction()
    count = books.metadata.current_snapshot().summary.additional_properties.get("total-data-files", "0")
    if int(count) >= LEDGER_FILES:
        whole = books.scan().to_arrow().cast(rows.schema)
        transaction.overwrite(pa.concat_tables([whole, rows]))
    else:
        transaction.append(rows)
    return transaction


def _post(catalog: RestCatalog, changes: list[tuple[str, Transaction]]) -> None:
    """One commit of several tables, which PyIceberg has no method for. Raises CommitFailedException when one has changed."""
    requests = []
    for name, transaction in changes:
        namespace, _, table = name.rpartition(".")
        same = (*transaction._requirements, AssertTableUUID(uuid=transaction.table_metadata.table_uuid))
        request = CommitTableRequest(
            identifier=TableIdentifier(namespace=(namespace,), name=table),
            requirements=(AssertCreate(),) if isinstance(transaction, CreateTableTransaction) else same,
            updates=transaction._updates,
        )
        made = json.loads(request.model_dump_json())
        for update in made["updates"]:
            if update["action"] == "add-schema":  # Nessie insists on what PyIceberg holds to be deprecated
                update["last-column-id"] = transaction.table_metadata.last_column_id
        requests.append(made)
    body = json.dumps({"table-changes": requests}).encode()
    answer = catalog._session.post(catalog.url("transactions/commit", prefixed=True), data=body)
    if answer.status_code == 409:
        raise CommitFailedException(answer.text)
    answer.raise_for_status()


def now() -> datetime:
    return datetime.now(UTC)
