"""What may be said of a folder in the landing bucket: a pipeline file of ``kind: landing``. Nothing has to be.

Names of tables and columns follow from those of folders and columns here and nowhere else.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from include.cdc.marked import Document, Problem, read
from include.cdc.pipelines import PipelineFile, files, read_kinds, shown
from include.ingest.deadletters import IngestError, Threshold
from include.ingest.sources import plain

if TYPE_CHECKING:
    import pyarrow as pa

KIND = "landing"
OWN = ("_file", "_version", "_line", "_loaded_at")
"""Added to each row: the file, how many times it had been put there, the line, and when it was loaded."""
RESERVED = ("objects", "landing_files", "dead_letters")
TYPES = ("string", "long", "double", "boolean", "date", "timestamp", "timestamptz")
DECIMAL = re.compile(r"decimal\((\d{1,2}),\s*(\d{1,2})\)")


class DeadLetters(BaseModel):
    """How many lines of a file may be dead letters: so many, or this share of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rows: int = Field(0, ge=0, description="So many dead letters are borne.")
    share: float = Field(0.05, ge=0, le=1, description="This share of what is read may be dead letters.")


class Folder(PipelineFile):
    """A folder of the landing bucket, and how the files in it are read."""

    kind: Literal["landing"] = Field(description="A folder of the landing bucket, whose files are read.")
    source: str = Field(pattern=r"^[^/]+$", description="The folder in the landing bucket.")
    format: Literal["auto", "csv", "jsonl", "parquet", "object"] = Field(
        "auto", description="auto goes by the files' names. object keeps no rows, but one about each file in raw.objects."
    )
    delimiter: str = Field("", max_length=1, description="Of CSV; found from the first lines when not given.")
    header: Literal["auto", True, False] = Field("auto", description="Whether the first line of CSV names the columns.")
    columns: tuple[str, ...] = Field((), description="Names of the columns of CSV without a header.")
    encoding: str = Field("utf-8", description="Of CSV and JSON lines.")
    nulls: tuple[str, ...] = Field(("",), description="Values of CSV that are NULL, unless they are quoted.")
    types: dict[str, str] = Field(
        default_factory=dict,
        description=f"Types of columns, where they are not to be found from the data: {', '.join(TYPES)}, decimal(p,s).",
    )
    versions: Literal["newest", "all"] = Field(
        "newest",
        description="newest: the rows of a file that is put there again take the place of its old ones. all: both stay.",
    )
    dead_letters: DeadLetters = DeadLetters()
    longest_line_mb: int = Field(16, ge=1, le=1024, description="Longer lines are dead letters.")

    @classmethod
    def prepared(cls, value: dict[str, Any]) -> dict[str, Any]:
        return {key: plain(given) if key in ("dead_letters", "longest_line_mb") else given for key, given in value.items()}

    @classmethod
    def part(cls, keys: tuple[str, ...]) -> type[BaseModel]:
        return DeadLetters if len(keys) > 1 and keys[0] == "dead_letters" else cls

    @classmethod
    def words(cls, keys: tuple[str, ...], item: Any) -> str:
        mismatch = item["type"] == "string_pattern_mismatch"
        return f"{shown(item['input'])} is no folder: its name has no / in it" if mismatch else ""

    @classmethod
    def problems(cls, document: Document) -> list[Problem]:
        source = document.value.get("source")
        if isinstance(source, str) and table_name(source) in RESERVED:
            text = f"would be raw.{table_name(source)}, which is ShuDL's own; rename the folder"
            return [Problem(document.line(("source",)), ("source",), text)]
        return []

    @property
    def writes(self) -> dict[str, tuple[str, ...]]:
        return {self.table: ("source",)}

    @property
    def claims(self) -> str:
        return f"the folder {self.folder}"

    @field_validator("encoding")
    @classmethod
    def _known(cls, given: str) -> str:
        try:
            return codecs.lookup(given).name
        except LookupError:
            raise ValueError(f"no such encoding: {given}") from None

    @field_validator("types")
    @classmethod
    def _typed(cls, given: dict[str, str]) -> dict[str, str]:
        for column, name in given.items():
            if name not in TYPES and not DECIMAL.fullmatch(name):
                raise ValueError(f"{column}: {name} is none of {', '.join(TYPES)}, decimal(p,s)")
        return {column_name(column): name for column, name in given.items()}

    @property
    def folder(self) -> str:
        return self.source

    @property
    def table(self) -> str:
        """``raw.<name>``."""
        return f"raw.{table_name(self.folder)}"

    @property
    def threshold(self) -> Threshold:
        return Threshold(rows=self.dead_letters.rows, share=self.dead_letters.share)

    def arrow_types(self) -> dict[str, pa.DataType]:
        return {column: arrow_type(name) for column, name in self.types.items()}


def arrow_type(name: str) -> pa.DataType:
    """The Arrow type of one of :data:`TYPES` or of ``decimal(p,s)``."""
    import pyarrow as pa

    if found := DECIMAL.fullmatch(name):
        return pa.decimal128(int(found[1]), int(found[2]))
    return {
        "string": pa.string(),
        "long": pa.int64(),
        "double": pa.float64(),
        "boolean": pa.bool_(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us"),
        "timestamptz": pa.timestamp("us", "UTC"),
    }[name]


def _plain(name: str) -> str:
    """Lower case, since Trino knows no other; what is neither a letter, a digit nor ``_`` becomes ``_``."""
    return re.sub(r"[^a-z0-9_]", "_", name.strip().lower())


def table_name(folder: str) -> str:
    """The table of a folder, in the namespace ``raw``. A name that begins with a digit gets ``_`` before it."""
    name = _plain(folder)
    return f"_{name}" if name[:1].isdigit() else name


def column_name(name: str) -> str:
    """A column as the lake names it; empty when nothing is left of it."""
    return _plain(name)


def column_names(names: Iterable[str]) -> list[str]:
    """A file's columns as the lake names them. Raises :class:`IngestError` where two become one, or one is ShuDL's."""
    made: dict[str, str] = {}
    for place, name in enumerate(names, start=1):
        plain = column_name(name) or f"c{place}"
        if plain in OWN:
            raise IngestError(f"column {name} has the name of one that ShuDL adds ({', '.join(OWN)}); rename it in the file")
        if plain in made:
            raise IngestError(f"columns {made[plain]} and {name} both become {plain}; rename one of them in the file")
        made[plain] = name
    return list(made)


def read_folders(folder: Path | None = None) -> tuple[dict[str, Folder], dict[str, list[str]]]:
    """What the pipeline files of ``kind: landing`` say, by folder, and what is wrong with those that cannot be used."""
    paths = files(folder)
    usable, wrong = read_kinds(paths)
    found = {options.folder: options for options in usable if isinstance(options, Folder)}
    problems: dict[str, list[str]] = {}
    for path in paths:
        texts = [text for text in wrong if text.startswith(f"{path.name}:")]
        value = read(path.read_bytes()).value if texts else None
        if isinstance(value, dict) and value.get("kind") == KIND:
            problems.setdefault(str(value.get("source", "")), []).extend(texts)
    return found, problems
