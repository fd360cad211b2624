"""What a proof found."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from include.cdc.source import SourceTable
from include.proof.dialects import Key, key_columns
from include.proof.stores import Row

LISTED = 100
"""Keys that are listed of each kind; all are counted."""
NAMED = 5
"""Keys of each kind that an error's text names."""

Kind = Literal["missing", "extra", "different"]
KINDS: tuple[Kind, ...] = ("missing", "extra", "different")
"""``missing``: only the left store has the row; ``extra``: only the right one; ``different``: another value there."""


@dataclass
class Found:
    """The rows of one kind: how many, and the first of them: key, and the columns that differ with both values."""

    count: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Comparison:
    """One table in two stores. The left one is right."""

    table: str
    left: str
    right: str
    state: Literal["equal", "different", "not published"] = "equal"
    left_rows: int = 0
    right_rows: int = 0
    buckets: int = 0
    buckets_differing: int = 0
    read_again: int = 0
    """Rows of differing buckets, read one by one."""
    settled: int = 0
    """Keys that differed only because the source had gone on."""
    moving: int = 0
    """Keys that the source changed in every round, so that no round could compare them."""
    unread: int = 0
    """Rows in differing buckets that were not looked at, as too many keys differ."""
    missing: Found = field(default_factory=Found)
    extra: Found = field(default_factory=Found)
    different: Found = field(default_factory=Found)
    seconds: dict[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def unresolved(self) -> int:
        return self.missing.count + self.extra.count + self.different.count + self.unread

    def add(self, kind: Kind, table: SourceTable, key: Key, left: Sequence[Row] = (), right: Sequence[Row] = ()) -> None:
        """Count one key that differs; list it among the first."""
        self.state = "different"
        found: Found = getattr(self, kind)
        found.count += 1
        if len(found.rows) >= LISTED:
            return
        row: dict[str, Any] = {"key": dict(zip((c.name for c in key_columns(table)), key, strict=True))}
        if kind == "different" and left and right:
            pairs = zip(table.columns, left[0].texts, right[0].texts, strict=True)
            row["columns"] = {column.name: {self.left: a, self.right: b} for column, a, b in pairs if a != b}
        elif len(right) > 1:
            row["rows"] = len(right)
        found.rows.append(row)

    def text(self) -> str:
        """The differences in one sentence, the first keys named."""
        parts = [self.note] if self.note else []
        for kind in KINDS:
            found: Found = getattr(self, kind)
            if found.count:
                rows = [_row_text(row, self.left, self.right) for row in found.rows[:NAMED]]
                more = [f"and {found.count - len(rows):,} more"] if found.count > len(rows) else []
                parts.append(f"{found.count:,} {kind}: {', '.join(rows + more)}")
        if self.unread:
            parts.append(f"{self.unread:,} rows unread, as too many differ")
        return f"{self.table}, {self.left} → {self.right}: {'; '.join(parts)}"


def _row_text(row: dict[str, Any], left: str, right: str) -> str:
    text = " ".join(f"{name}={value}" for name, value in row["key"].items())
    if "rows" in row:
        return f"{text} ({row['rows']} rows)"
    values = (f"{name}: {_value(pair[left])} → {_value(pair[right])}" for name, pair in row.get("columns", {}).items())
    shown = ", ".join(itertools.islice(values, NAMED))
    return f"{text} ({shown})" if shown else text


def _value(text: str | None) -> str:
    return "NULL" if text is None else repr(text[:60])


@dataclass
class Report:
    """A proof of one pipeline. ``unresolved`` = 0 is the verdict; :meth:`to_json` what is kept of it."""

    source: str
    started_at: str
    comparisons: list[Comparison] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    snapshot_lsn: str = ""
    coverage: dict[str, Any] = field(default_factory=dict)
    rounds: int = 0
    """How often keys that differed were read again."""
    nessie: dict[str, str | None] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def unresolved(self) -> int:
        return sum(comparison.unresolved for comparison in self.comparisons)

    @property
    def settled(self) -> int:
        return sum(comparison.settled for comparison in self.comparisons)

    @property
    def moving(self) -> int:
        return sum(comparison.moving for comparison in self.comparisons)

    @property
    def verdict(self) -> str:
        if self.unresolved:
            return "different"
        return "equal, but for keys that the source never ceased to change" if self.moving else "equal"

    def text(self) -> str:
        """The verdict, and every difference by table and key."""
        lines = [comparison.text() for comparison in self.comparisons if comparison.unresolved]
        return "\n".join([f"{self.source}: {self.verdict}, {self.unresolved:,} unresolved", *lines])

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        from dataclasses import asdict

        head = {"verdict": self.verdict, "unresolved": self.unresolved, "settled": self.settled, "moving": self.moving}
        data = asdict(self)
        for comparison, made in zip(self.comparisons, data["comparisons"], strict=True):
            made["unresolved"] = comparison.unresolved
        return {**head, **data}
