"""Pipeline files of kind airbyte: what is wrong with them has file, line and way out; records become Avro or say why not."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import fastavro
import pytest

from include.cdc.pipelines import PipelineError, load, load_all, read_kinds
from include.ingest.airbyte import plan
from include.ingest.airbyte_schema import Columns, Encoder, Misfit, kind
from include.ingest.connectors import WAY_OUT, _given, configuration
from include.ingest.deadletters import Counts, Refused, Threshold
from include.ingest.sources import AirbytePipeline, lake_name
from include.ingest.stream import kafka_options
from include.ingest.stream_schema import Incompatible, merged
from include.platform.endpoints import Endpoint
from tests.pipeline_files import problems_of

GOOD = """kind: airbyte
source: shop
connector: airbyte-source-faker
version: 7.2.1
connection: shop_api
config: {count: 100, rate: 0.5, nested: {key: "${password}"}}
streams:
  users: {write: dedup, key: [id]}
  "Order Items/Ü":
dead_letters: {rows: 10, share: 0.01}
"""


def test_a_good_file(tmp_path: Path) -> None:
    (tmp_path / "p.yml").write_text(GOOD)
    pipeline = load(tmp_path / "p.yml")
    assert isinstance(pipeline, AirbytePipeline)
    assert pipeline.config == {"count": 100, "rate": 0.5, "nested": {"key": "${password}"}}
    assert [pipeline.topic(s) for s in pipeline.streams] == ["airbyte.raw.users", "airbyte.raw.order_items__"]
    assert pipeline.threshold == Threshold(10, 0.01)
    assert load_all(tmp_path) == [], "DAGs of kind cdc are made of files of that kind alone"


@pytest.mark.parametrize(
    ("good", "bad", "line", "text"),
    [
        ("kind: airbyte", "kind: airbite", 1, "kind: must be 'cdc', 'airbyte' or 'landing', not 'airbite'"),
        ("version: 7.2.1", "version: 7", 4, "version: must be a text, not 7 (a number); write it in quotes"),
        ("version: 7.2.1\n", "", 1, "version: is missing; add it"),
        ("airbyte-source-faker", "pip install x", 3, "is no name of a Python package"),
        ("write: dedup", "write: upsert", 8, "streams.users.write: must be 'append' or 'dedup', not 'upsert'"),
        ("write: dedup", "wright: dedup", 8, "streams.users.wright: unknown key; did you mean write?"),
        ("  users:", "  dead_letters:", 8, "is ShuDL's own table"),
        ("  users:", "  order items/ü:", 9, "becomes raw.order_items__, and so does order items/ü"),
        ("share: 0.01", "share: 2", 10, "dead_letters.share: Input should be less than or equal to 1"),
        ("source: shop", "source: landing", 2, "is the name of the landing bucket's DAG"),
        ("connection: shop_api", "server: airbyte", 3, "connector: is the server's business"),
    ],
)
def test_each_problem_has_its_line_and_way_out(tmp_path: Path, good: str, bad: str, line: int, text: str) -> None:
    assert good in GOOD
    found = problems_of(tmp_path, GOOD.replace(good, bad, 1))
    assert any(problem.startswith(f"p.yml:{line}: ") and text in problem for problem in found), found


def test_two_sources_do_not_write_one_table(tmp_path: Path) -> None:
    for source in ("one", "two"):
        (tmp_path / f"{source}.yml").write_text(GOOD.replace("source: shop", f"source: {source}"))
    usable, (found,) = read_kinds(sorted(tmp_path.iterdir()))
    assert [pipeline.source for pipeline in usable] == ["one"]
    assert found.startswith("two.yml:8: streams.users: would be raw.users, and so would one.yml:8")


def test_secrets_come_from_the_connection(tmp_path: Path) -> None:
    (tmp_path / "p.yml").write_text(GOOD)
    pipeline = load(tmp_path / "p.yml")
    endpoint = Endpoint("shop_api", "generic", "h", 1, password="hunter22", extra={"list": [1]})
    config, secrets = configuration(pipeline, endpoint)
    assert config["nested"] == {"key": "hunter22"} and secrets == ("hunter22",)
    with pytest.raises(PipelineError, match=r"p.yml:6: config.nested.key: connection shop_api has no field password"):
        configuration(pipeline, Endpoint("shop_api", "generic", "h", 1))


STREAM = {
    "name": "users",
    "supported_sync_modes": ["full_refresh"],
    "json_schema": {"properties": {"id": {"type": "integer"}, "Name": {"type": ["null", "string"]}}},
}


@pytest.mark.parametrize(
    ("discovered", "text"),
    [
        ({"user": STREAM}, "streams.users: the source has no such stream; did you mean user?"),
        ({"users": STREAM | {"json_schema": {"properties": {"nr": {}}}}}, "streams.users.key: the stream has no field id"),
    ],
)
def test_a_stream_that_vanished_or_changed(tmp_path: Path, discovered: dict[str, Any], text: str) -> None:
    (tmp_path / "p.yml").write_text(GOOD.replace('  "Order Items/Ü":\n', ""))
    with pytest.raises(PipelineError) as raised:
        plan(load(tmp_path / "p.yml"), discovered)
    assert any(text in problem for problem in raised.value.problems), raised.value.problems


def test_types_of_json_schema() -> None:
    stamp = {"type": ["null", "string"], "format": "date-time"}
    given = {
        "long": {"type": ["null", "integer"]},
        "double": {"type": "number"},
        "boolean": {"type": "boolean"},
        "date": {"type": "string", "format": "date"},
        "instant": stamp,
        "wall_time": stamp | {"airbyte_type": "timestamp_without_timezone"},
        "string": {"type": "string", "format": "uuid"},
        "json": {"type": ["string", "integer"]},
    }
    assert {kind(schema): schema for schema in given.values()} == given
    others = ({}, {"oneOf": []}, {"type": "object"}, True, None, {"type": "array"})
    assert {kind(schema) for schema in others} == {"json"}


PROPERTIES = {
    "id": {"type": "integer"},
    "Größe": {"type": "number"},
    "2nd": {"type": "string"},
    "_partition": {"type": "boolean"},
    "day": {"type": "string", "format": "date"},
    "at": {"type": "string", "format": "date-time"},
    "tags": {"type": "array"},
    "a b": {"type": "string"},
    "a_b": {"type": "string"},
}
COLUMNS = Columns.of("users", {"properties": PROPERTIES})


def test_a_record_survives_as_avro() -> None:
    columns = ["id", "gr__e", "_2nd", "_partition_2", "day", "at", "tags", "a_b", "a_b_2"]
    assert [column for _, column, _ in COLUMNS.fields] == columns
    record = {
        **{"id": -(2**63), "Größe": 1, "2nd": "ü\u2028", "_partition": False, "day": "0001-01-01"},
        **{"at": "2024-02-29T23:59:59.999999Z", "tags": [1, {"x": None}], "a b": None, "more": {"k": "v"}},
    }
    value = Encoder(COLUMNS, 258).encode(record, 1_700_000_000_000)
    assert value[:5] == b"\0\0\0\1\2"
    row = fastavro.schemaless_reader(io.BytesIO(value[5:]), COLUMNS.avro, None)
    assert row["id"] == -(2**63) and row["gr__e"] == 1.0 and row["_2nd"] == "ü\u2028" and row["_partition_2"] is False
    assert str(row["day"]) == "0001-01-01" and row["at"].isoformat() == "2024-02-29T23:59:59.999999+00:00"
    assert json.loads(row["tags"]) == [1, {"x": None}] and row["a_b"] is None
    assert json.loads(row["_undeclared"]) == {"more": {"k": "v"}}
    assert Columns.registered(COLUMNS.avro) == COLUMNS


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({"id": "x"}, 'field id: "x" is no integer'),
        ({"id": 1.5}, "is no integer"),
        ({"id": True}, "is no integer"),
        ({"id": 2**63}, "has more than 64 bits"),
        ({"Größe": "1"}, "is no number"),
        ({"day": "yesterday"}, "is no date or time"),
        ({"at": 5}, "is no date or time"),
        ({"2nd": "\ud800"}, "is no Unicode text"),
    ],
)
def test_a_record_that_does_not_fit_says_why(record: dict[str, Any], text: str) -> None:
    with pytest.raises(Misfit, match=text):
        Encoder(COLUMNS, 1).encode(record, 0)


def test_a_field_kept_as_text_has_a_column_of_its_own() -> None:
    columns = Columns.of("users", {"properties": {"id": {"type": "integer"}}}, text=("id",))
    assert columns.fields == (("id", "id_text", "string"),)
    merged([COLUMNS.avro, columns.avro])


def schema(**fields: Any) -> dict[str, Any]:
    found = [{"name": name, "type": ["null", kind], "default": None} for name, kind in fields.items()]
    return {"type": "record", "name": "t", "fields": found}


def test_versions_are_merged_to_their_widest() -> None:
    found = merged([schema(a="int", b="string"), schema(a="long", c="float"), schema(a="int", c="double")])
    assert {field["name"]: field["type"][1] for field in found["fields"]} == {"a": "long", "b": "string", "c": "double"}
    with pytest.raises(Incompatible, match="field a was long and is now string"):
        merged([schema(a="long"), schema(a="string")])


def test_rules_of_a_run() -> None:
    Counts(10, 9, 1).check("raw.t")
    with pytest.raises(Refused, match="read 10 rows, wrote 8 and kept 1 as dead letters: 1 are unaccounted for"):
        Counts(10, 8, 1).check("raw.t")
    Threshold(1, 0.2).check("raw.t", Counts(10, 8, 2))
    with pytest.raises(Refused, match="3 of 10 rows are dead letters, at most 2 are allowed"):
        Threshold(1, 0.2).check("raw.t", Counts(10, 7, 3))


def test_kafka_with_passwords(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("PEM")
    extra = {
        **{"bootstrap.servers": "k:1", "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512"},
        **{"sasl.username": "u", "sasl.password": 'p"', "ssl.ca.location": str(tmp_path / "ca")},
    }
    options = kafka_options(Endpoint("k", "kafka", "", 0, extra=extra))
    assert options["kafka.sasl.jaas.config"].endswith('ScramLoginModule required username="u" password="p\\"";')
    assert options["kafka.ssl.truststore.certificates"] == "PEM"


def test_names_of_tables() -> None:
    assert [lake_name(name) for name in ("Users", "2024", "a.b-c", "Ü")] == ["users", "_2024", "a_b_c", "_"]


def test_connectors_are_told_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy, and certificates where a file has them; nothing of what is not given."""
    monkeypatch.setenv("CONNECTOR_PROXY", "http://proxy:3128")
    monkeypatch.setenv("CONNECTOR_CA_FILE", "/dev/null")
    monkeypatch.delenv("CONNECTOR_INDEX", raising=False)
    proxied = {"HTTP_PROXY": "http://proxy:3128", "HTTPS_PROXY": "http://proxy:3128"}
    assert _given(WAY_OUT) == proxied
    ca = tmp_path / "ca.pem"
    ca.write_text("x")
    monkeypatch.setenv("CONNECTOR_CA_FILE", str(ca))
    assert _given(WAY_OUT) == proxied | {"SSL_CERT_FILE": str(ca), "REQUESTS_CA_BUNDLE": str(ca)}
