"""Files in the landing bucket become rows of the lake, each version of a file once, however often and wherever it is tried.

``landing/<folder>/<file>`` becomes rows of ``raw.<folder>``; what holds no rows becomes one row of ``raw.objects``. Which
files are due follows from the bucket and the ledger ``raw.landing_files``, which gets its line in the commit of the rows.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mimetypes
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyiceberg.table import StagedTable

from include.ingest import deadletters, landing_bucket
from include.ingest.deadletters import Counts, DeadLetter, IngestError
from include.ingest.files_csv import Parsed, open_csv
from include.ingest.files_json import Json, columns_of
from include.ingest.files_parquet import Parquet
from include.ingest.files_records import Block, Dead, FileError, blocks, old_mac, unzipped, utf8
from include.ingest.landing_bucket import File
from include.ingest.landing_options import KIND, OWN, RESERVED, Folder, read_folders, table_name
from include.ingest.landing_table import (
    FOLDER,
    WRITERS,
    Landed,
    Writers,
    Written,
    arrow_types,
    commit,
    landed,
    ledger,
    now,
    staged,
    transaction_of,
    widen,
)
from include.lake.catalog import LANDING, Lake, existing
from include.lake.s3 import ensure_buckets, s3_client
from include.platform.endpoints import Endpoints

if TYPE_CHECKING:
    from pyiceberg.catalog.rest import RestCatalog
    from pyiceberg.table import Table

log = logging.getLogger(__name__)
OBJECTS = "raw.objects"
FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}
TOGETHER = 50
"""Files that are committed together, at most."""
TOGETHER_ROWS = 2_000_000
DEAD_KEPT = 5_000
"""Dead letters that are in memory at a time."""
SURE = 100_000
"""Rows after which a file with too many dead letters is given up on the way."""

_OBJECT = pa.schema(
    [
        ("path", pa.string()),
        ("size", pa.int64()),
        ("sha256", pa.string()),
        ("content_type", pa.string()),
        ("modified", pa.timestamp("us", "UTC")),
        ("etag", pa.string()),
        ("metadata", pa.string()),
        ("_version", pa.int32()),
        ("_loaded_at", pa.timestamp("us", "UTC")),
    ]
)


@dataclass
class Report:
    """What a run did with one folder."""

    folder: str
    tables: list[str] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, line: Landed) -> None:
        self.files.append({key: value for key, value in asdict(line).items() if isinstance(value, str | int)})
        if line.rows_written and line.target not in self.tables:
            self.tables.append(line.target)


def due(endpoints: Endpoints) -> tuple[dict[str, int], list[str]]:
    """The folders that have files to be loaded, with their number, and what is wrong in the bucket or the pipeline files."""
    s3, catalog = s3_client(endpoints["shudl_s3"]), Lake.from_endpoints(endpoints).pyiceberg()
    ensure_buckets(s3, LANDING)
    _, wrong = read_folders()
    files = landing_bucket.listing(s3)
    problems = [text for texts in wrong.values() for text in texts]
    problems += [f"{file.path} lies in no folder; put it into one, which names its table" for file in files if not file.folder]
    owners: dict[str, str] = {}
    refused = set(wrong)
    for folder in sorted({file.folder for file in files if file.folder}):
        table = table_name(folder)
        if table.removeprefix("raw.") in RESERVED:
            problems.append(f"folder {folder} would be raw.{table}, which is ShuDL's own; rename it")
            refused.add(folder)
        elif table in owners:
            problems.append(f"folders {owners[table]} and {folder} would both be raw.{table}; rename one of them")
            refused |= {folder, owners[table]}
        owners.setdefault(table, folder)
    lines, tables = landed(ledger(catalog)), _Uuids(catalog)
    counts: dict[str, int] = {}
    for file in files:
        if file.folder and file.folder not in refused and not tables.has(file, lines):
            counts[file.folder] = counts.get(file.folder, 0) + 1
    return counts, problems


class _Uuids:
    """Whether a table still has what the ledger says: one that was dropped gets its files anew."""

    def __init__(self, catalog: RestCatalog) -> None:
        self._catalog = catalog
        self._known: dict[str, str] = {}

    def of(self, table: str) -> str:
        if table not in self._known:
            found = existing(self._catalog, table)
            self._known[table] = str(found.metadata.table_uuid) if found else ""
        return self._known[table]

    def has(self, file: File, lines: dict[str, Landed]) -> bool:
        line = lines.get(file.path)
        return line is not None and line.etag == file.etag and line.table_uuid == self.of(line.target)


def load(endpoints: Endpoints, folder: str, run: str) -> Report:
    """Load what is due of ``folder``. A file that cannot be loaded is in the report, and leaves the table as it was."""
    options, problems = read_folders()
    if folder in problems:
        raise IngestError("\n".join(problems[folder]))
    return Loader(endpoints, options.get(folder) or Folder(kind=KIND, source=folder), run).load()


class Loader:
    """One run over one folder."""

    def __init__(self, endpoints: Endpoints, options: Folder, run: str) -> None:
        self.options, self.run = options, run
        self.lake = Lake.from_endpoints(endpoints)
        self.catalog = self.lake.pyiceberg()
        self.s3 = s3_client(endpoints["shudl_s3"])
        self.report = Report(options.folder)
        self._waiting: list[Written] = []
        self._dead: dict[str, set[str]] = {}

    def load(self) -> Report:
        lines, tables = landed(ledger(self.catalog)), _Uuids(self.catalog)
        for file in landing_bucket.listing(self.s3, f"{self.options.folder}/"):
            if tables.has(file, lines):
                continue
            try:
                self._waiting.append(self._read(file, lines.get(file.path)))
            except (FileError, IngestError) as error:
                self.report.failed[file.path] = str(error)
                log.error("%s: %s", file.path, error)
            if self._new_table() or len(self._waiting) >= TOGETHER or self._rows() >= TOGETHER_ROWS:
                self._commit()
        self._commit()
        self._settle()
        return self.report

    def _new_table(self) -> bool:
        return any(isinstance(item.table, StagedTable) for item in self._waiting)

    def _rows(self) -> int:
        return sum(item.landed.rows_written for item in self._waiting)

    def _commit(self) -> None:
        """Commit what waits. A new table is made by the commit of its first file."""
        waiting, self._waiting = self._waiting, []
        for target in dict.fromkeys(item.landed.target for item in waiting):
            mine = [item for item in waiting if item.landed.target == target]
            for line in commit(self.catalog, target, mine, "path" if target == OBJECTS else "_file"):
                self.report.add(line)
                log.info(
                    "%s is version %d: %d rows read, %d written to %s, %d dead letters",
                    *(line.path, line.version, line.rows_read, line.rows_written, target, line.dead_letters),
                )

    def _settle(self) -> None:
        """Close the dead letters of versions that were replaced, and those that are rows now."""
        loaded = {line["path"]: line["etag"] for line in self.report.files if line["target"] == self.options.table}
        if not loaded:
            return
        closed = [
            letter.id
            for letter in deadletters.open_of(self.lake, self.options.table)
            if letter.kind == "file"
            and letter.origin in loaded
            and (letter.part != loaded[letter.origin] or letter.id not in self._dead.get(letter.origin, ()))
        ]
        deadletters.mark_replayed(self.lake, closed, self.run)

    def _format(self, file: File) -> str:
        if self.options.format != "auto":
            return self.options.format
        name = file.path.lower().removesuffix(".gz")
        found = next((kind for suffix, kind in FORMATS.items() if name.endswith(suffix)), "object")
        return "object" if found == "parquet" and file.path.lower().endswith(".gz") else found

    def _read(self, file: File, before: Landed | None) -> Written:
        """The rows of a file, written but not committed."""
        log.info("%s: %d bytes", file.path, file.size)
        version = 1 if before is None else before.version + (before.etag != file.etag)
        another = before is not None and before.etag != file.etag and before.rows_written > 0
        replaces = another and self.options.versions == "newest"
        match self._format(file):
            case "object":
                return self._object(file, version, replaces)
            case "parquet":
                return self._parquet(file, version, replaces)
            case "jsonl":
                return self._json(file, version, replaces)
        table = self._existing()
        reader, records = open_csv(old_mac(self._text(file)), self.options, self._known(table), file.path.removesuffix(".gz"))
        if reader is None:
            return self._nothing(file, version, table, replaces)
        read_as = {"format": "csv", "delimiter": reader.delimiter, "header": reader.header, "columns": list(reader.columns)}
        return self._write(file, version, replaces, table, reader.columns, records, reader.parse, read_as)

    def _text(self, file: File) -> Iterator[bytes]:
        found = landing_bucket.chunks(self.s3, file)
        return utf8(unzipped(found) if file.path.lower().endswith(".gz") else found, self.options.encoding)

    def _existing(self) -> Table | None:
        """The folder's table; None where there is none. Raises :class:`IngestError` when it is not this folder's."""
        table = existing(self.catalog, self.options.table)
        if table is None:
            return None
        owner = table.metadata.properties.get(FOLDER)
        if owner != self.options.folder:
            raise IngestError(
                f"{self.options.table} {f'has the files of folder {owner}' if owner else 'was not made from files'}; "
                f"rename the folder {self.options.folder}"
            )
        return table

    def _known(self, table: Table | None) -> dict[str, pa.DataType]:
        known = arrow_types(table) if table is not None else {}
        for name, kind in self.options.arrow_types().items():
            if name in known and known[name] != kind:
                raise IngestError(
                    f"{self.options.table}: {name} is {known[name]} and types says {kind}; drop the table, "
                    "and the next run loads its files anew, or take it out of types"
                )
        for item in self._waiting:
            if item.landed.target == self.options.table:
                known |= {column.name: column.type for column in item.columns if column.name not in known}
        return {name: kind for name, kind in known.items() if name not in OWN}

    def _nothing(self, file: File, version: int, table: Table | None, replaces: bool) -> Written:
        line = self._line(file, version, self.options.table, table, Counts(), {"format": "empty"})
        return Written(line, pa.schema([]), table, replaces=replaces)

    def _line(self, file: File, version: int, target: str, table: Table | None, counts: Counts, read_as: dict) -> Landed:
        return Landed(
            path=file.path,
            etag=file.etag,
            version=version,
            target=target,
            table_uuid=str(table.metadata.table_uuid) if table is not None else "",
            size=file.size,
            modified=file.modified,
            rows_read=counts.read,
            rows_written=counts.written,
            dead_letters=counts.dead,
            read_as=json.dumps(read_as),
            run=self.run,
            loaded_at=now(),
        )

    def _json(self, file: File, version: int, replaces: bool) -> Written:
        """Twice through the file: all keys with their types first, since any line may have a new one."""
        table = self._existing()
        longest, encoding = self.options.longest_line_mb << 20, self.options.encoding
        encoding = "utf-8" if encoding.startswith(("utf-16", "utf-32")) else encoding
        known = {**self.options.arrow_types(), **self._known(table)}
        columns = columns_of(blocks(self._text(file), None, longest), encoding, known)
        records = blocks(self._text(file), None, longest)
        if not columns and (first := next((item for item in records if isinstance(item, Dead) or len(item)), None)) is None:
            return self._nothing(file, version, table, replaces)
        if not columns:
            records = chain([first], records)
        read_as = {"format": "jsonl", "columns": list(columns)}
        return self._write(file, version, replaces, table, columns, records, Json(encoding, columns).parse, read_as)

    def _parquet(self, file: File, version: int, replaces: bool) -> Written:
        from pyiceberg.io import load_file_io

        table = self._existing()
        source = load_file_io(self.catalog.properties).new_input(f"s3://{LANDING}/{file.path}").open()
        with source:
            reader = Parquet.open(source, {**self.options.arrow_types(), **self._known(table)})
            if not reader.file.metadata.num_rows:
                return self._nothing(file, version, table, replaces)
            read_as = {"format": "parquet", "columns": list(reader.columns)}
            made = self._write(file, version, replaces, table, reader.columns, reader.batches(), reader.parse, read_as)
        if next(iter(landing_bucket.listing(self.s3, file.path)), file).etag != file.etag:
            raise IngestError(f"{file.path} was put there again while it was read; the next run takes it")
        return made

    def _write(
        self,
        file: File,
        version: int,
        replaces: bool,
        table: Table | None,
        columns: dict[str, pa.DataType],
        records: Iterable[Any],
        parse: Callable[[Any], Parsed],
        read_as: dict[str, Any],
    ) -> Written:
        """Read, convert and write on all processors; no more than a few blocks are in memory."""
        target, loaded_at = self.options.table, now()
        constants = {
            "_file": pa.scalar(file.path),
            "_version": pa.scalar(version, pa.int32()),
            "_loaded_at": pa.scalar(loaded_at, pa.timestamp("us", "UTC")),
        }
        whole = pa.schema([*columns.items(), ("_file", pa.string()), ("_version", pa.int32()), ("_line", pa.int64())])
        whole = whole.append(pa.field("_loaded_at", pa.timestamp("us", "UTC")))
        if table is None:
            table = staged(self.catalog, target, whole, {FOLDER: self.options.folder})
        transaction = transaction_of(table)
        for item in self._waiting:
            if item.landed.target == target:
                widen(transaction, item.columns)
        schema = widen(transaction, whole)
        ids = {column.name: str(column.field_id) for column in schema.fields}
        whole = pa.schema([column.with_metadata({"PARQUET:field_id": ids[column.name]}) for column in whole])
        writers = Writers(table, schema, constants)
        counts, letters = Counts(), _Letters(self, file)

        def convert(item: Any) -> Parsed:
            parsed = parse(item)
            if parsed.table is not None:
                writers.write(parsed.table)
                parsed.rows, parsed.table = len(parsed.table), None
            return parsed

        try:
            for parsed in _in_parallel(convert, records):
                counts.read += parsed.read
                counts.written += parsed.rows
                counts.dead += len(parsed.dead)
                letters.add(parsed.dead)
                if counts.read >= SURE and len(parsed.dead):
                    self._bearable(letters, counts)
            counts.check(target)
            self._bearable(letters, counts)
            files = writers.close()
        except BaseException:
            writers.drop()
            raise
        letters.keep()
        line = self._line(file, version, target, table, counts, read_as)
        return Written(line, whole, table, files, replaces)

    def _bearable(self, letters: _Letters, counts: Counts) -> None:
        """Raises :class:`IngestError` when too many rows are dead; the dead letters are kept, to be looked at."""
        try:
            self.options.threshold.check(self.options.table, counts)
        except IngestError:
            letters.keep()
            raise

    def _object(self, file: File, version: int, replaces: bool) -> Written:
        """One row about a file that holds no rows."""
        head = self.s3.head_object(Bucket=LANDING, Key=file.path)
        digest = hashlib.sha256()
        for chunk in landing_bucket.chunks(self.s3, file):
            digest.update(chunk)
        kind = mimetypes.guess_type(file.path)[0] or head.get("ContentType") or "application/octet-stream"
        table = existing(self.catalog, OBJECTS) or staged(self.catalog, OBJECTS, _OBJECT, {})
        ids = {column.name: str(column.field_id) for column in table.schema().fields}
        row = {
            "path": file.path,
            "size": file.size,
            "sha256": digest.hexdigest(),
            "content_type": kind,
            "modified": file.modified,
            "etag": file.etag,
            "metadata": json.dumps(head.get("Metadata", {})),
            "_version": version,
            "_loaded_at": now(),
        }
        writers = Writers(table, table.schema(), {})
        try:
            writers.write(pa.Table.from_pylist([row], schema=_OBJECT))
            files = writers.close()
        except BaseException:
            writers.drop()
            raise
        columns = pa.schema([column.with_metadata({"PARQUET:field_id": ids[column.name]}) for column in _OBJECT])
        line = self._line(file, version, OBJECTS, table, Counts(1, 1, 0), {"format": "object"})
        return Written(line, columns, table, files, replaces)


class _Letters:
    """The dead letters of one file, kept in the lake as they come."""

    def __init__(self, loader: Loader, file: File) -> None:
        self._loader, self._file = loader, file
        self._new: list[DeadLetter] = []
        loader._dead[file.path] = set()

    def add(self, dead: list[Dead]) -> None:
        for item in dead:
            letter = DeadLetter(
                "file", self._loader.options.table, self._file.path, self._file.etag, item.line, item.raw, item.reason
            )
            self._new.append(letter)
            self._loader._dead[self._file.path].add(letter.id)
        if len(self._new) >= DEAD_KEPT:
            self.keep()

    def keep(self) -> None:
        if self._new:
            deadletters.append(self._loader.lake, self._new, self._loader.run)
        self._new = []


def _in_parallel(convert: Callable[[Any], Parsed], records: Iterable[Any]) -> Iterator[Parsed]:
    """What becomes of each block, in order; a few are under way at a time."""
    with ThreadPoolExecutor(WRITERS) as pool:
        under_way: deque[Future[Parsed]] = deque()
        try:
            for item in records:
                if isinstance(item, Dead):
                    yield Parsed(None, [item], 1)
                    continue
                if isinstance(item, Block) and not len(item):
                    continue
                under_way.append(pool.submit(convert, item))
                if len(under_way) > WRITERS:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()


def verdict(reports: Iterable[dict[str, Any]], problems: Iterable[str]) -> str:
    """What the run did, in a sentence. Raises :class:`IngestError` with everything that failed."""
    reports = list(reports)
    failed = [*problems, *(f"{path}: {why}" for report in reports for path, why in report["failed"].items())]
    if failed:
        raise IngestError("\n".join(failed))
    files = [file for report in reports for file in report["files"]]
    return f"{len(files)} files, {sum(file['rows_written'] for file in files)} rows"


def put(endpoints: Endpoints, folder: str, name: str, source: Any) -> str:
    """Put the open file ``source`` into the bucket as ``folder/name``; its path."""
    s3 = s3_client(endpoints["shudl_s3"])
    ensure_buckets(s3, LANDING)
    s3.upload_fileobj(source, LANDING, f"{folder}/{name}")
    return f"{folder}/{name}"
