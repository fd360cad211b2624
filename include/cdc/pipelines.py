"""Pipeline files: which tables of which database are kept in the lake, and how.

One YAML file in the folder ``settings.pipelines`` is one source. Its ``kind`` says what reads it: ``cdc`` (a database's
changes, :class:`Pipeline`), ``airbyte`` (batches, :class:`include.ingest.sources.AirbytePipeline`) or ``landing`` (files,
:class:`include.ingest.landing_options.Folder`). Every name that follows from a file of kind cdc (topics, slot, connector,
Iceberg tables, jobs) is derived here and nowhere else.

``python -m include.cdc.pipelines`` prints the JSON schema of such a file, which is ``include/pipelines/schema.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import reduce
from importlib import import_module
from operator import or_
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    StrictBool,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from include.cdc.marked import Document, Other, Problem, read
from include.platform.settings import settings

HEARTBEAT_TABLE = "shudl.heartbeat"
NAME = r"^[a-z][a-z0-9_]{0,39}$"
CONNECTION = r"^[A-Za-z0-9_.:/\\#!()-]{1,200}$"
"""What Airflow takes for the id of a connection."""

KINDS = {
    "cdc": "include.cdc.pipelines:Pipeline",
    "airbyte": "include.ingest.sources:AirbytePipeline",
    "landing": "include.ingest.landing_options:Folder",
}
"""Kind of a pipeline file → its model, as module:class."""

SCHEMA = Path(__file__).resolve().parents[1] / "pipelines" / "schema.json"
SHOWN = 60
"""How many characters of a wrong value a message shows."""
LSN = "_lsn"
COMMITTED_AT = "_committed_at"
"""Added to every table: the LSN of the row's last change, or of the change, and when the source committed it."""
OPERATION = "_op"
TRANSACTION = "_tx_id"
PARTITION = "_kafka_partition"
OFFSET = "_kafka_offset"
"""Added to every changelog: r (read by the first snapshot), c (insert), u (update) or d (delete); the transaction's id
(32 bits); partition and offset of the change in Kafka."""
BEFORE = "_before"
"""In changelogs of tables without a primary key: the row before an update, as nothing else tells which row it was."""
HEADERS = "_headers"
"""A record's Kafka headers, as a column in Flink."""


def underscored(name: str, allowed: str) -> str:
    """``name`` with ``_`` for each UTF-16 unit that is not among ``allowed``, the inside of a regular expression's ``[]``.

    So Debezium makes names for Kafka and Avro.
    """
    return re.sub(f"[^{allowed}]", lambda found: "_" * (len(found[0].encode("utf-16-le")) // 2), name)


class PipelineError(ValueError):
    """Everything that is wrong with a pipeline, each problem with its file, line and way out."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class OrNothing:
    """In the JSON schema: the value may be left empty."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [handler(core_schema), {"type": "null"}]}


class Table(BaseModel):
    """How one source table is kept, and what of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    mode: Literal["mirror", "changelog", "both"] = Field(
        "mirror",
        description="mirror: an Iceberg table that equals the source table, which needs a primary key. "
        "changelog: an Iceberg table with every change as a row, append only. both: the two of them.",
    )
    serve: StrictBool = Field(False, description="Whether ClickHouse gets a copy of the mirror.")
    columns: tuple[str, ...] = Field((), description="Only these columns are captured; all of them when not given.")
    exclude: tuple[str, ...] = Field((), description="These columns are not captured.")
    mask: tuple[str, ...] = Field((), description="Of these columns only a hash leaves the source.")
    text: tuple[str, ...] = Field(
        (),
        description="These columns are kept as PostgreSQL's text of them: for values that the column's Iceberg type "
        "cannot hold, such as infinity, numeric NaN or dates before the year 1.",
    )
    where: str = Field("", description="Only rows for which this SQL condition holds are captured, for example: region = 'EU'.")

    @property
    def mirrored(self) -> bool:
        return self.mode in ("mirror", "both")

    @property
    def logged(self) -> bool:
        """Whether a changelog is kept."""
        return self.mode in ("changelog", "both")


class PipelineFile(BaseModel):
    """What pipeline files of every kind have: a source, and a place in the file for everything that they say."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    source: str = Field(pattern=NAME)

    _path: Path | None = PrivateAttr(None)
    _document: Document = PrivateAttr(default_factory=Document)

    @property
    def path(self) -> Path | None:
        """The pipeline's file; None for a pipeline that was made without one."""
        return self._path

    def at(self, *keys: str) -> str:
        """Where the file says something of ``keys``: ``shop.yml:12: tables.public.orders``."""
        where = f"{self._path.name}:{self._document.line(keys)}" if self._path else f"pipeline {self.source}"
        return f"{where}: {'.'.join(keys)}"

    def line(self, *keys: str) -> int:
        """The line of ``keys`` in the file, 1 where there is none."""
        return self._document.line(keys)

    @property
    def claims(self) -> str:
        """What only one file may say something of."""
        return self.source

    @property
    def writes(self) -> dict[str, tuple[str, ...]]:
        """Tables of a namespace that sources share, and where the file names each."""
        return {}

    @classmethod
    def prepared(cls, value: dict[str, Any]) -> dict[str, Any]:
        """The file's value as the model takes it."""
        return value

    @classmethod
    def problems(cls, document: Document) -> list[Problem]:
        """What is wrong with a file besides what the model finds."""
        return []

    @classmethod
    def part(cls, keys: tuple[str, ...]) -> type[BaseModel]:
        """The model whose field ``keys`` name."""
        return cls

    @classmethod
    def words(cls, keys: tuple[str, ...], item: Any) -> str:
        """What pydantic found, in the words of this kind; empty where those for every kind will do."""
        return ""


class Pipeline(PipelineFile):
    """One source database and its tables, keyed by ``schema.table``."""

    kind: Literal["cdc"] = Field("cdc", description="A database, whose changes are captured.")
    source: str = Field(
        pattern=NAME,
        description="Names the source: its DAGs cdc_<source> and prove_<source>, its topics, and the lake's namespace.",
    )
    connection: str = Field(pattern=CONNECTION, description="The Airflow connection, of type postgres, to the database.")
    tables: dict[
        Annotated[str, StringConstraints(pattern=r"^[^.]+\.[^.]+$")],
        Annotated[Table, BeforeValidator(lambda given: {} if given is None else given), OrNothing],
    ] = Field(
        min_length=1,
        description="The tables that are kept, as schema.table; nothing after the colon means mode: mirror.",
        json_schema_extra={"additionalProperties": False},
    )

    @classmethod
    def problems(cls, document: Document) -> list[Problem]:
        return _name_problems(document)

    @classmethod
    def part(cls, keys: tuple[str, ...]) -> type[BaseModel]:
        return Table if len(keys) > 2 else cls

    @classmethod
    def words(cls, keys: tuple[str, ...], item: Any) -> str:
        match item["type"]:
            case "tuple_type":
                return f"must be a list of columns, for example [id, name], not {shown(item['input'])}"
            case "dict_type":
                return f"must be a mapping, for example {{public.orders: {{mode: mirror}}}}, not {shown(item['input'])}"
            case "model_type":
                return f"must be a mapping, for example {{mode: mirror}}, not {shown(item['input'])}"
            case "too_short":
                return "names no table; add one, for example public.orders: {mode: mirror}"
            case "string_pattern_mismatch" if keys[0] == "tables":
                table = item["input"].strip(".").rpartition(".")[2] or "orders"
                return f"write tables as schema.table, for example public.{table}"
        return ""

    @property
    def slot(self) -> str:
        return f"shudl_{self.source}"

    @property
    def publication(self) -> str:
        return f"shudl_{self.source}"

    @property
    def connector(self) -> str:
        return f"cdc.{self.source}"

    @property
    def namespace(self) -> str:
        return f"cdc_{self.source}"

    def topic(self, table: str) -> str:
        """Kafka topic of ``schema.table``; its subjects are ``<topic>-key`` and ``<topic>-value``."""
        return underscored(f"{self.source}.{table}", "A-Za-z0-9._-")

    def iceberg_name(self, table: str) -> str:
        """Name of the mirror of ``schema.table`` in :attr:`namespace`."""
        return lake_name(table)

    def iceberg_table(self, table: str) -> str:
        return f"{self.namespace}.{self.iceberg_name(table)}"

    def changelog_name(self, table: str) -> str:
        """Name of the changelog of ``schema.table`` in :attr:`namespace`."""
        return f"{self.iceberg_name(table)}_changelog"

    def changelog_table(self, table: str) -> str:
        return f"{self.namespace}.{self.changelog_name(table)}"

    def job(self, table: str) -> str:
        """Name of the Flink job that keeps the mirror of ``schema.table``; also its Kafka consumer group."""
        return f"cdc.{self.source}.{self.iceberg_name(table)}"

    def changelog_job(self, table: str) -> str:
        """Name of the Flink job that keeps the changelog of ``schema.table``; also its Kafka consumer group."""
        return f"cdc.{self.source}.{self.changelog_name(table)}"


def lake_name(table: str) -> str:
    """Name of ``schema.table`` in the lake; ``public.`` is left out.

    Lower case, since Trino knows no other; what is neither a letter, a digit nor ``_`` becomes ``_``.
    """
    schema, name = table.split(".")
    return re.sub(r"[^a-z0-9_]", "_", (name if schema == "public" else f"{schema}_{name}").lower())


def load(path: Path) -> PipelineFile:
    """Read one pipeline file. Raises :class:`PipelineError` with all of its problems."""
    try:
        if path.exists() and not path.is_file():
            raise PipelineError([f"{path.name}:1: is not a file; a pipeline is one YAML file"])
        document = read(path.read_bytes())
    except (OSError, ValueError) as error:
        if isinstance(error, PipelineError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise PipelineError([f"{path.name}:1: cannot be read: {reason}; see that {path} exists and may be read"]) from None
    if not isinstance(document.value, dict):
        if not document.problems:
            document.problems.append(Problem(1, (), "must be a mapping with the keys source, connection and tables"))
        raise PipelineError([_text(path, problem) for problem in document.problems])
    kind = document.value.get("kind", "cdc")
    if not isinstance(kind, str) or kind not in KINDS:
        *some, last = map(repr, KINDS)
        text = f"must be {', '.join(some)} or {last}, not {shown(kind)}"
        raise PipelineError([_text(path, Problem(document.line(("kind",)), ("kind",), text))])
    model = _model(kind)
    problems = [*document.problems, *model.problems(document)]
    pipeline = None
    try:
        pipeline = model.model_validate(model.prepared(document.value))
    except ValidationError as error:
        problems += [_problem(document, item, model) for item in error.errors(include_url=False)]
    if problems or pipeline is None:
        raise PipelineError([_text(path, problem) for problem in sorted(problems, key=lambda problem: problem.line)])
    pipeline._path, pipeline._document = path, document
    return pipeline


def _model(kind: str) -> type[PipelineFile]:
    module, _, name = KINDS[kind].partition(":")
    return getattr(import_module(module), name)


def files(folder: Path | None = None) -> list[Path]:
    """The pipeline files of ``folder``, by name; none when there is no such folder."""
    folder = folder or settings.pipelines
    return sorted(path for pattern in ("*.yml", "*.yaml") for path in folder.glob(pattern))


def read_all(paths: Iterable[Path]) -> tuple[list[Pipeline], list[str]]:
    """The pipelines of kind cdc that can be used, and everything that is wrong with those of any kind."""
    usable, problems = read_kinds(paths)
    pipelines = [pipeline for pipeline in usable if isinstance(pipeline, Pipeline)]
    return pipelines, [*problems, *_served_twice(pipelines)]


def read_kinds(paths: Iterable[Path]) -> tuple[list[PipelineFile], list[str]]:
    """The pipelines of every kind that can be used, and what is wrong with the others.

    Of files that claim one source none is used: each would undo what the other does.
    """
    problems: list[str] = []
    loaded: list[PipelineFile] = []
    for path in paths:
        try:
            loaded.append(load(path))
        except PipelineError as error:
            problems += error.problems
    owners: dict[str, list[Path]] = {}
    for pipeline in loaded:
        owners.setdefault(pipeline.claims, []).append(pipeline.path or Path())
    for pipeline in loaded:
        if others := [path.name for path in owners[pipeline.claims] if path != pipeline.path]:
            text = f"{pipeline.source} is claimed by {', '.join(others)} too; rename one of them"
            problems.append(f"{pipeline.at('source')}: {text}")
    usable = [pipeline for pipeline in loaded if len(owners[pipeline.claims]) == 1]
    writers: dict[str, str] = {}
    for pipeline in list(usable):
        for table, keys in pipeline.writes.items():
            if table in writers:
                problems.append(f"{pipeline.at(*keys)}: would be {table}, and so would {writers[table]}; give it another table")
                usable.remove(pipeline)
                break
            writers[table] = pipeline.at(*keys)
    return usable, problems


def _served_twice(pipelines: Iterable[Pipeline]) -> list[str]:
    """Tables of several pipelines that would be one table in ClickHouse."""
    served: dict[str, str] = {}
    problems: list[str] = []
    for pipeline in pipelines:
        for table in (name for name, kept in pipeline.tables.items() if kept.serve):
            name, here = pipeline.iceberg_name(table), pipeline.at("tables", table)
            if name in served:
                problems.append(f"{here}: would be served as {name}, and so would {served[name]}; take serve from one of them")
            served.setdefault(name, here)
    return problems


def load_all(folder: Path | None = None) -> list[Pipeline]:
    """The pipelines of kind cdc of ``folder`` that can be used; what is wrong with others is for :func:`read_all` to tell."""
    return read_all(files(folder))[0]


def by_source(source: str) -> Pipeline:
    """The pipeline of ``source``. Raises :class:`PipelineError`."""
    pipelines, problems = read_all(files())
    for pipeline in pipelines:
        if pipeline.source == source:
            return pipeline
    raise PipelineError([f"no file in {settings.pipelines} has source: {source}", *problems])


def close_to(name: str, known: Iterable[str]) -> str:
    """``did you mean …?`` when a known name is nearly ``name``, else an empty string."""
    found = get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f"did you mean {found[0]}?" if found else ""


def _name_problems(document: Document) -> list[Problem]:
    """Tables whose names become the same in the lake, and the one that is ShuDL's own."""
    tables = document.value.get("tables")
    problems: list[Problem] = []
    owners: dict[str, str] = {}
    for table, given in tables.items() if isinstance(tables, dict) else ():
        if table.count(".") != 1:
            continue
        keys = ("tables", table)
        if table == HEARTBEAT_TABLE:
            problems.append(Problem(document.line(keys), keys, "is ShuDL's own table; remove it"))
        mode = given.get("mode") if isinstance(given, Mapping) else None
        suffixes = {"changelog": ("_changelog",), "both": ("", "_changelog")}.get(mode if isinstance(mode, str) else "", ("",))
        for name in (lake_name(table) + suffix for suffix in suffixes):
            if name in owners:
                text = f"becomes {name} in the lake, and so does {owners[name]}; keep them in pipelines of their own"
                problems.append(Problem(document.line(keys), keys, text))
            owners.setdefault(name, table)
    return problems


def _problem(document: Document, item: Any, model: type[PipelineFile]) -> Problem:
    """What pydantic found, in words for the one who wrote the file."""
    keys = tuple(str(part) for part in item["loc"] if part != "[key]")
    given, context = item["input"], item.get("ctx", {})
    if text := model.words(keys, item):
        return Problem(document.line(keys), keys, text)
    match item["type"]:
        case "extra_forbidden":
            known = list(model.part(keys).model_fields)
            text = f"unknown key; {close_to(keys[-1], known) or 'remove it; the keys here are ' + ', '.join(known)}"
        case "missing":
            text = "is missing; add it"
        case "string_type":
            text = f"must be a text, not {shown(given)}{'; write it in quotes' if isinstance(given, Other | bool) else ''}"
        case "tuple_type":
            text = f"must be a list, for example [id, name], not {shown(given)}"
        case "dict_type" | "model_type":
            text = f"must be a mapping, not {shown(given)}"
        case "value_error":
            text = str(context["error"])
        case "bool_type":
            text = f"must be true or false, not {shown(given)}"
        case "literal_error":
            text = f"must be {context['expected']}, not {shown(given)}"
        case "string_pattern_mismatch" if keys[0] == "source":
            text = f"{shown(given)} must begin with a small letter and go on with small letters, digits and _, 40 at most"
        case "string_pattern_mismatch":
            text = f"{shown(given)} is no id of an Airflow connection; take letters, digits and _, for example shop_db"
        case _:
            text = f"{item['msg']}; given is {shown(given)}"
    return Problem(document.line(keys), keys, text)


def shown(given: Any) -> str:
    """A wrong value, short, and named by its kind where that is what is wrong."""
    match given:
        case None:
            return "nothing"
        case bool():
            return f"{str(given).lower()} (a boolean)"
        case Other(text, kind):
            return f"{_cut(text)} ({kind})"
        case str():
            return f"'{_cut(given)}'"
    return "a mapping" if isinstance(given, Mapping) else "a list"


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _text(path: Path, problem: Problem) -> str:
    """One printable line: ``shop.yml:12: tables.public.orders: …``."""
    where = ".".join(_cut(key) for key in problem.keys)
    text = f"{path.name}:{problem.line}: {f'{where}: ' if where else ''}{problem.text}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def schema() -> dict[str, Any]:
    """The JSON schema of a pipeline file, for editors."""
    made = TypeAdapter(reduce(or_, map(_model, KINDS))).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": "ShuDL pipeline"}


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))
