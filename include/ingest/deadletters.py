"""Dead letters: what could not become a row, kept in one Iceberg table, ``raw.dead_letters``.

A dead letter has the raw bytes, the reason and where they came from. Its id follows from its target and where it came from,
so that a run which is tried again adds none twice. Every run holds to two rules: :meth:`Counts.check` (rows read = rows
written + dead letters) and :meth:`Threshold.check` (too many of them fail the run).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, Protocol

from include.lake.catalog import Lake, existing
from include.platform.endpoints import Endpoints

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.table import Table

NAMESPACE = "raw"
TABLE = f"{NAMESPACE}.dead_letters"
PROPERTIES = {"format-version": "2", "write.parquet.compression-codec": "zstd"}
CHUNK = 10_000
"""Dead letters that are held in memory at a time."""
TRIES = 8
OPEN, REPLAYED = "open", "replayed"

Kind = Literal["kafka", "file"]
REPLAYERS: dict[str, str] = {"kafka": "include.ingest.stream:replay", "file": "include.ingest.files:replay"}
"""Kind → the function (module:name) that tries its dead letters again, a :class:`Replayer`."""


class IngestError(RuntimeError):
    """A run that cannot go on; the text names the thing, the value and the way out."""


class Refused(IngestError):
    """A run that wrote what it could, and must not pass for a good one: it is not tried again by itself."""


class Replayer(Protocol):
    """Writes those ``letters`` that now become rows of ``target``, each once however often it is called; their ids."""

    def __call__(self, endpoints: Endpoints, target: str, letters: Iterable[DeadLetter], run: str) -> Iterable[str]: ...


@dataclass(frozen=True)
class DeadLetter:
    """What did not become a row of ``target`` (``raw.users``).

    kind ``kafka``: ``origin`` is the topic, ``part`` the partition, ``position`` the offset, ``raw`` the record's value.
    kind ``file``: ``origin`` is the path, ``part`` the file's version, ``position`` the line (from 1), ``raw`` the line.
    """

    kind: Kind
    target: str
    origin: str
    part: str
    position: int
    raw: bytes
    reason: str

    @property
    def id(self) -> str:
        where = "\n".join((self.kind, self.target, self.origin, self.part, str(self.position)))
        return hashlib.sha256(where.encode()).hexdigest()


@dataclass(frozen=True)
class Threshold:
    """A run fails when it has more dead letters than ``rows`` and than ``share`` of what it read. By default: none at all."""

    rows: int = 0
    share: float = 0.0

    def check(self, target: str, counts: Counts) -> None:
        """Raises :class:`Refused`."""
        most = max(self.rows, int(self.share * counts.read))
        if counts.dead > most:
            raise Refused(
                f"{target}: {counts.dead} of {counts.read} rows are dead letters, at most {most} are allowed; see their reason "
                f"in {TABLE} (target = '{target}', state = 'open'), mend the source or the pipeline file and run "
                "replay_dead_letters; or raise dead_letters in the pipeline file"
            )


@dataclass
class Counts:
    """What a run did for one target."""

    read: int = 0
    written: int = 0
    dead: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.read + other.read, self.written + other.written, self.dead + other.dead)

    def check(self, target: str) -> None:
        """Raises :class:`Refused` unless each row that was read is written or a dead letter."""
        if self.read != self.written + self.dead:
            raise Refused(
                f"{target}: read {self.read} rows, wrote {self.written} and kept {self.dead} as dead letters: "
                f"{self.read - self.written - self.dead} are unaccounted for"
            )


def ensure(lake: Lake) -> Table:
    """The table, made where there is none."""
    from pyiceberg.exceptions import NamespaceAlreadyExistsError, TableAlreadyExistsError

    catalog = lake.pyiceberg()
    if (table := existing(catalog, TABLE)) is not None:
        return table
    try:
        catalog.create_namespace(NAMESPACE)
    except NamespaceAlreadyExistsError:
        pass
    try:
        return catalog.create_table(TABLE, _schema(), properties=PROPERTIES)
    except TableAlreadyExistsError:
        return catalog.load_table(TABLE)


def append(lake: Lake, letters: Iterable[DeadLetter], run: str) -> int:
    """Keep ``letters`` as open; those that the table has already stay as they are. How many are new."""
    new, rest = 0, iter(letters)
    while chunk := list({letter.id: letter for letter in islice(rest, CHUNK)}.values()):
        new += _retried(lambda table: _append(table, chunk, run), lake)
    return new


def open_of(lake: Lake, target: str) -> Iterator[DeadLetter]:
    """The dead letters of ``target`` that wait for a replay, in no order, a batch at a time in memory."""
    from pyiceberg.expressions import And, EqualTo

    found = ensure(lake).scan(And(EqualTo("target", target), EqualTo("state", OPEN)))
    fields = ("kind", "target", "origin", "part", "position", "raw", "reason")
    for batch in found.to_arrow_batch_reader():
        yield from (DeadLetter(**{name: row[name] for name in fields}) for row in batch.to_pylist())


def targets(lake: Lake) -> list[str]:
    """The tables that have open dead letters."""
    from pyiceberg.expressions import EqualTo

    found = ensure(lake).scan(EqualTo("state", OPEN), selected_fields=("target",)).to_arrow()
    return sorted(set(found["target"].to_pylist()))


def mark_replayed(lake: Lake, ids: Iterable[str], run: str) -> int:
    """Mark open dead letters as replayed by ``run``; how many were. A second call does nothing."""
    marked, rest = 0, iter(ids)
    while chunk := list(islice(rest, CHUNK)):
        marked += _retried(lambda table: _mark(table, chunk, run), lake)
    return marked


def replay(endpoints: Endpoints, target: str, run: str) -> Counts:
    """Try the open dead letters of ``target`` again, each by its kind's :class:`Replayer`. What stays dead stays open."""
    lake = Lake.from_endpoints(endpoints)
    counts = Counts()
    for kind, where in REPLAYERS.items():
        letters = [letter for letter in open_of(lake, target) if letter.kind == kind]
        if not letters:
            continue
        module, _, name = where.partition(":")
        replayer: Replayer = getattr(import_module(module), name)
        written = set(replayer(endpoints, target, letters, run))
        mark_replayed(lake, written, run)
        counts += Counts(len(letters), len(written), len(letters) - len(written))
    return counts


def _schema() -> Any:
    from pyiceberg.schema import Schema
    from pyiceberg.types import BinaryType, LongType, NestedField, StringType, TimestamptzType

    columns = (
        ("id", StringType()),
        ("kind", StringType()),
        ("target", StringType()),
        ("origin", StringType()),
        ("part", StringType()),
        ("position", LongType()),
        ("raw", BinaryType()),
        ("reason", StringType()),
        ("first_seen", TimestamptzType()),
        ("run", StringType()),
        ("state", StringType()),
    )
    fields = [NestedField(n, name, kind, required=True) for n, (name, kind) in enumerate(columns, start=1)]
    fields += [NestedField(12, "replayed_at", TimestamptzType()), NestedField(13, "replayed_run", StringType())]
    return Schema(*fields, identifier_field_ids=[1])


def _append(table: Table, letters: list[DeadLetter], run: str) -> int:
    from pyiceberg.expressions import In

    ids = [letter.id for letter in letters]
    present = set(table.scan(In("id", ids), selected_fields=("id",)).to_arrow()["id"].to_pylist())
    now = datetime.now(UTC)
    rows = [
        {
            **{name: getattr(letter, name) for name in ("id", "kind", "target", "origin", "part", "position", "raw", "reason")},
            "first_seen": now,
            "run": run,
            "state": OPEN,
        }
        for letter in letters
        if letter.id not in present
    ]
    if rows:
        table.append(_arrow(table, rows))
    return len(rows)


def _mark(table: Table, ids: list[str], run: str) -> int:
    from pyiceberg.expressions import And, EqualTo, In

    chosen = And(In("id", ids), EqualTo("state", OPEN))
    rows = table.scan(chosen).to_arrow().to_pylist()
    now = datetime.now(UTC)
    for row in rows:
        row.update(state=REPLAYED, replayed_at=now, replayed_run=run)
    if rows:
        table.overwrite(_arrow(table, rows), overwrite_filter=chosen)
    return len(rows)


def _arrow(table: Table, rows: list[dict[str, Any]]) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema=table.schema().as_arrow())


def _retried(deed: Callable[[Table], int], lake: Lake) -> int:
    """``deed`` on the table as it is; anew when another writer commits meanwhile."""
    from pyiceberg.exceptions import CommitFailedException

    for attempt in range(TRIES):
        try:
            return deed(ensure(lake))
        except CommitFailedException:
            if attempt == TRIES - 1:
                raise
            time.sleep(0.2 * 2**attempt)
    raise AssertionError
