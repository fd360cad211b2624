"""Pipeline files: which tables of which database are kept in the lake, and how.

One YAML file in ``include/pipelines/`` is one source. Every name that follows from it (topics, slot,
connector, Iceberg tables, jobs) is derived here and nowhere else.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

PIPELINES = Path(__file__).resolve().parents[1] / "pipelines"
HEARTBEAT_TABLE = "shudl.heartbeat"
NAME = r"^[a-z][a-z0-9_]{0,39}$"
LSN = "_lsn"
COMMITTED_AT = "_committed_at"
"""Added to every mirror: the LSN of the row's last change and when the source committed it."""
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


class Table(BaseModel):
    """How one source table is kept, and what of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    mode: Literal["mirror", "changelog", "both"] = Field(
        "mirror",
        description="mirror: an Iceberg table that equals the source table, which needs a primary key. "
        "changelog: an Iceberg table with every change as a row, append only. both: the two of them.",
    )
    serve: bool = Field(False, description="Whether ClickHouse gets a copy of the mirror.")
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


class Pipeline(BaseModel):
    """One source database and its tables, keyed by ``schema.table``."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    source: str = Field(pattern=NAME)
    connection: str = Field(min_length=1)
    tables: dict[str, Table] = Field(min_length=1)

    @field_validator("tables")
    @classmethod
    def _qualified(cls, tables: dict[str, Table]) -> dict[str, Table]:
        for name in tables:
            if name.count(".") != 1 or not all(name.split(".")):
                raise ValueError(f"{name}: write tables as schema.table, for example public.{name.strip('.') or 'orders'}")
        return tables

    @model_validator(mode="after")
    def _distinct(self) -> Pipeline:
        owners: dict[str, str] = {}
        for name in self.tables:
            first = owners.setdefault(self.iceberg_name(name), name)
            if first != name:
                raise ValueError(f"{first} and {name} would both be {self.iceberg_table(name)} in the lake; keep one of them")
        return self

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
        """Name of the mirror of ``schema.table`` in :attr:`namespace`; ``public.`` is left out.

        Lower case, since Trino knows no other; what is neither a letter, a digit nor ``_`` becomes ``_``.
        """
        schema, name = table.split(".")
        return re.sub(r"[^a-z0-9_]", "_", (name if schema == "public" else f"{schema}_{name}").lower())

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


def load(path: Path) -> Pipeline:
    """Read one pipeline file. Raises :class:`PipelineError` with all of its problems."""
    try:
        text = path.read_text()
    except OSError as error:
        raise PipelineError([f"{path}: cannot be read: {error.strerror}"]) from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path.name}:{mark.line + 1}" if mark else path.name
        raise PipelineError([f"{where}: not YAML: {getattr(error, 'problem', error)}"]) from None
    if not isinstance(raw, dict):
        raise PipelineError([f"{path.name}:1: must be a mapping with source, connection and tables"])
    try:
        return Pipeline.model_validate(raw)
    except ValidationError as error:
        raise PipelineError([_problem(path, node, item) for item in error.errors()]) from None


def load_all(folder: Path = PIPELINES) -> list[Pipeline]:
    """Every pipeline file of ``folder``, by name. Raises :class:`PipelineError`, also when two claim one source."""
    paths = sorted(folder.glob("*.yml"))
    pipelines = [load(path) for path in paths]
    owners: dict[str, Path] = {}
    for path, pipeline in zip(paths, pipelines, strict=True):
        if pipeline.source in owners:
            raise PipelineError(
                [f"{path.name}: source {pipeline.source} is already claimed by {owners[pipeline.source].name}; rename one"]
            )
        owners[pipeline.source] = path
    return pipelines


def by_source(source: str) -> Pipeline:
    """The pipeline of ``source``. Raises :class:`PipelineError`."""
    for pipeline in load_all():
        if pipeline.source == source:
            return pipeline
    raise PipelineError([f"no file in {PIPELINES.name}/ has source: {source}"])


def _problem(path: Path, node: Any, item: Any) -> str:
    loc = [part for part in item["loc"] if part != "[key]"]
    line = node.start_mark.line + 1
    for part in loc:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        for key, value in pairs:
            if str(key.value) == str(part):
                line, node = key.start_mark.line + 1, value
                break
    message = {
        "extra_forbidden": "unknown key; remove it or correct its spelling",
        "missing": "is missing; add it",
    }.get(item["type"], item["msg"].removeprefix("Value error, "))
    return f"{path.name}:{line}: {'.'.join(str(part) for part in loc)}: {message}"
