"""Pipeline files of kind ``airbyte``: which streams of which source come in batches, and how their tables are kept.

Every name that follows from such a file (topics, tables, consumer, transaction, checkpoints) is derived here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, StringConstraints

from include.cdc.marked import Document, Other, Problem
from include.cdc.pipelines import CONNECTION, NAME, OrNothing, PipelineError, PipelineFile, files, read_kinds, shown
from include.ingest.deadletters import NAMESPACE, TABLE, Threshold
from include.platform.settings import settings

TOPICS = "airbyte.raw"
RESERVED = TABLE.rpartition(".")[2]
EMITTED_AT, LOADED_AT = "_emitted_at", "_loaded_at"
UNDECLARED = "_undeclared"
"""Added to every table besides partition and offset in Kafka: when the source gave the row, when the table got it, and as
JSON what the record has besides its declared fields."""
PACKAGE = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
VERSION = r"^[0-9][A-Za-z0-9.!+]*$"


class Stream(BaseModel):
    """How one stream is read and kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sync: Literal["incremental", "full_refresh"] | None = Field(
        None,
        description="incremental: what is new since the last run. full_refresh: everything, each time. "
        "When not given: incremental where the source can.",
    )
    write: Literal["append", "dedup"] = Field(
        "append", description="append: each record is a row. dedup: the table has the latest row of each key."
    )
    key: tuple[str, ...] = Field((), description="The fields that tell rows apart; the source's own key when not given.")
    cursor: str = Field("", description="The field by which the source knows what is new; the source's own when not given.")
    table: str = Field("", pattern=r"^([a-z_][a-z0-9_]{0,99})?$", description="The table in raw; named as the stream by default.")
    text: tuple[str, ...] = Field((), description="Fields kept as text in a column <field>_text, whatever their type.")


class DeadLetters(BaseModel):
    """How many dead letters of a table a run may have: the larger of the two."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rows: int = Field(0, ge=0, description="Allowed however many rows were read.")
    share: float = Field(0.0, ge=0, le=1, description="Allowed as a share of the rows read, for example 0.001.")


class AirbytePipeline(PipelineFile):
    """One source that a connector of Airbyte's reads, here or on an Airbyte server, and its streams."""

    kind: Literal["airbyte"] = Field(description="A source that an Airbyte connector reads in batches.")
    source: str = Field(pattern=NAME, description="Names the source: its DAG ingest_<source>.")
    connector: str = Field("", pattern=rf"{PACKAGE}|^$", description="The connector's package, for example airbyte-source-faker.")
    version: str = Field("", pattern=rf"{VERSION}|^$", description="The package's version, for example '7.2.1'.")
    python: str = Field("", pattern=r"^(3\.[0-9]{1,2})?$", description="The Python it needs, where it does not take ShuDL's.")
    connection: str = Field(
        "", pattern=rf"{CONNECTION}|^$", description="The Airflow connection whose fields ${…} in config stand for."
    )
    config: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="The connector's configuration, as its specification has it. ${password}, ${login}, ${host}, ${port}, "
        "${schema} and ${name of an extra} are the connection's.",
    )
    server: str = Field("", pattern=rf"{CONNECTION}|^$", description="The connection of an Airbyte server that runs this sync.")
    server_connection: str = Field("", description="The sync's connection id on that server.")
    streams: dict[
        Annotated[str, StringConstraints(min_length=1)],
        Annotated[Stream, BeforeValidator(lambda given: {} if given is None else given), OrNothing],
    ] = Field(min_length=1, description="The streams that are read; nothing after the colon means: append.")
    schedule: str = Field("", description="When it runs, as Airflow has it (@hourly, a cron expression); by hand when not given.")
    max_record_bytes: int = Field(8_000_000, ge=1000, le=90_000_000, description="The largest record that its topics take.")
    dead_letters: DeadLetters = Field(default_factory=DeadLetters)

    @property
    def remote(self) -> bool:
        """Whether an Airbyte server of the user's runs the connector."""
        return bool(self.server)

    @property
    def threshold(self) -> Threshold:
        return Threshold(self.dead_letters.rows, self.dead_letters.share)

    @property
    def writes(self) -> dict[str, tuple[str, ...]]:
        return {self.lake_table(stream): ("streams", stream) for stream in self.streams}

    def table(self, stream: str) -> str:
        """The table's name in ``raw``."""
        return self.streams[stream].table or lake_name(stream)

    def lake_table(self, stream: str) -> str:
        return f"{NAMESPACE}.{self.table(stream)}"

    def topic(self, stream: str) -> str:
        """The topic of a stream is named after its table; its subject is ``<topic>-value``."""
        return f"{TOPICS}.{self.table(stream)}"

    @property
    def job(self) -> str:
        """Name of the Spark application, and of the producer's transactions."""
        return f"ingest.{self.source}"

    def checkpoint(self, stream: str) -> str:
        """Where Spark keeps how far it has read, below the lake's bucket."""
        return f"checkpoints/ingest/{self.source}/{self.table(stream)}"

    @classmethod
    def prepared(cls, value: dict[str, Any]) -> dict[str, Any]:
        numbers = ("config", "dead_letters", "max_record_bytes")
        return {key: plain(given) if key in numbers else given for key, given in value.items()}

    @classmethod
    def problems(cls, document: Document) -> list[Problem]:
        value = document.value
        found: list[Problem] = []

        def problem(text: str, *keys: str) -> None:
            found.append(Problem(document.line(keys), keys, text))

        here, there = ("connector", "version", "connection", "config", "python"), ("server", "server_connection")
        if any(value.get(key) for key in there):
            for key in (key for key in here if key in value):
                problem("is the server's business where server is given; remove one of them", key)
            wanted = there
        else:
            wanted = here[:2]
        for key in (key for key in wanted if not value.get(key)):
            problem("is missing; add it", key)
        if value.get("source") == "landing":
            problem("is the name of the landing bucket's DAG, ingest_landing; take another", "source")
        owners: dict[str, str] = {}
        streams = value.get("streams")
        for stream, given in streams.items() if isinstance(streams, Mapping) else ():
            named = given.get("table") if isinstance(given, Mapping) else None
            table = named if isinstance(named, str) and named else lake_name(stream)
            if table == RESERVED:
                problem(f"{TABLE} is ShuDL's own table; give the stream another table", "streams", stream)
            if table in owners:
                problem(f"becomes raw.{table}, and so does {owners[table]}; give it another table", "streams", stream)
            owners.setdefault(table, stream)
        return found

    @classmethod
    def part(cls, keys: tuple[str, ...]) -> type[BaseModel]:
        if len(keys) > 1 and keys[0] == "dead_letters":
            return DeadLetters
        return Stream if len(keys) > 2 and keys[0] == "streams" else cls

    @classmethod
    def words(cls, keys: tuple[str, ...], item: Any) -> str:
        given = item["input"]
        match item["type"]:
            case "tuple_type":
                return f"must be a list of fields, for example [id], not {shown(given)}"
            case "too_short":
                return "names no stream; add one, for example users: {write: dedup}"
            case "string_pattern_mismatch" if keys[0] == "connector":
                return f"{shown(given)} is no name of a Python package; write for example airbyte-source-faker"
            case "string_pattern_mismatch" if keys[0] in ("version", "python"):
                return f"{shown(given)} is no version; pin one, for example {'3.12' if keys[0] == 'python' else '7.2.1'}"
            case "string_pattern_mismatch" if keys[-1] == "table":
                return f"{shown(given)} must begin with a small letter or _ and go on with small letters, digits and _"
        return ""


def lake_name(stream: str) -> str:
    """Name of a stream's table: small letters, digits and ``_``; whatever else becomes ``_``. Also of its fields' columns."""
    name = re.sub(r"[^a-z0-9_]", "_", stream.lower())
    return f"_{name}" if name[:1].isdigit() else name


def plain(value: Any) -> Any:
    """A value of the file with its numbers as numbers; what else YAML reads into plain words stays text."""
    match value:
        case Other(text, "a number"):
            try:
                return int(text.replace("_", ""))
            except ValueError:
                try:
                    return float(text)
                except ValueError:
                    return text
        case Other(text, _):
            return text
        case dict():
            return {key: plain(inner) for key, inner in value.items()}
        case list():
            return [plain(inner) for inner in value]
    return value


def load_sources(paths: Iterable[Path] | None = None) -> list[AirbytePipeline]:
    """The pipelines of kind airbyte that can be used."""
    usable, _ = read_kinds(files() if paths is None else paths)
    return [pipeline for pipeline in usable if isinstance(pipeline, AirbytePipeline)]


def ingest_source(source: str) -> AirbytePipeline:
    """The pipeline of ``source``. Raises :class:`PipelineError`."""
    for pipeline in load_sources():
        if pipeline.source == source:
            return pipeline
    raise PipelineError([f"no file of kind airbyte in {settings.pipelines} has source: {source}", *read_kinds(files())[1]])
