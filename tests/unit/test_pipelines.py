"""Pipeline files: whatever they hold, there is a pipeline or a list of problems that name file and line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.cdc.marked import LONGEST
from include.cdc.pipelines import SCHEMA, Pipeline, PipelineError, by_source, load, load_all, read_all, schema
from include.platform.settings import ROOT
from tests.pipeline_files import problems_of

GOOD = """source: shop
connection: shop_db
tables:
  public.orders: {mode: mirror, serve: true, columns: [id, total]}
  public.events:
    mode: changelog
    where: region = 'EU'
  sales.customers:
"""
LINE = re.compile(r"p\.yml:\d+: .+")


def test_a_good_file_and_where_it_says_what(tmp_path: Path) -> None:
    (tmp_path / "p.yml").write_text(GOOD)
    pipeline = load(tmp_path / "p.yml")
    assert {name: table.mode for name, table in pipeline.tables.items()} == {
        "public.orders": "mirror", "public.events": "changelog", "sales.customers": "mirror",
    }  # fmt: skip
    assert pipeline.at("tables", "public.events", "where") == "p.yml:7: tables.public.events.where"
    assert pipeline.at("tables", "public.orders", "mask") == "p.yml:4: tables.public.orders.mask"
    assert pipeline.at("connection") == "p.yml:2: connection"
    assert Pipeline.model_validate({"source": "a", "connection": "b", "tables": {"c.d": {}}}).at("source") == "pipeline a: source"


BAD = {
    "Shop": ("source: shop", "source: Shop", 1, "source: 'Shop' must begin with a small letter"),
    "unknown key": ("mode: changelog", "mod: changelog", 6, "tables.public.events.mod: unknown key; did you mean mode?"),
    "unknown key at the top": ("connection:", "conection:", 2, "conection: unknown key; did you mean connection?"),
    "missing key": ("connection: shop_db\n", "", 1, "connection: is missing; add it"),
    "wrong mode": ("mode: mirror", "mode: copy", 4, "must be 'mirror', 'changelog' or 'both', not 'copy'"),
    "wrong boolean": ("serve: true", "serve: sure", 4, "tables.public.orders.serve: must be true or false, not 'sure'"),
    "wrong list": ("[id, total]", "id", 4, "must be a list of columns, for example [id, name], not 'id'"),
    "a boolean as a column": ("[id, total]", "[id, no]", 4, "must be a text, not false (a boolean); write it in quotes"),
    "a number as a name": ("source: shop", "source: 2013", 1, "must be a text, not 2013 (a number); write it in quotes"),
    "a date as a condition": ("region = 'EU'", "2024-01-01", 7, "where: must be a text, not 2024-01-01 (a date)"),
    "no schema": ("public.orders", "orders", 4, "tables.orders: write tables as schema.table, for example public.orders"),
    "too many dots": ("public.orders", "db.public.orders", 4, "write tables as schema.table, for example public.orders"),
    "a table twice": ("public.events", "public.orders", 5, "tables.public.orders: is given twice, first in line 4"),
    "a key twice": ("    where", "    mode: both\n    where", 7, "tables.public.events.mode: is given twice, first in line 6"),
    "same name in the lake": ("sales.customers", "public.Orders", 8, "becomes orders in the lake, and so does public.orders"),
    "a changelog's name": ("sales.customers", "public.events_changelog", 8, "becomes events_changelog in the lake"),
    "our own table": ("sales.customers", "shudl.heartbeat", 8, "is ShuDL's own table; remove it"),
    "not YAML": ("{mode: mirror,", "{mode: [mirror,", 4, "not YAML: "),
    "a tab": ("    where", "\twhere", 7, "indent with blanks instead"),
    "an alias": ("region = 'EU'", "*other", 7, "anchors (&) and aliases (*) are not used here"),
    "an anchor": ("mode: changelog", "mode: &m changelog", 6, "anchors (&) and aliases (*) are not used here"),
    "a tag": ("source: shop", "source: !!python/name:os.system shop", 1, "source: must be a text"),
    "a merge key": ("    mode: changelog", "    <<: {mode: both}", 6, "tables.public.events.<<: unknown key"),
    "a list as a key": ("sales.customers:", "? [a, b]\n  : {}", 8, "a list or mapping stands where a key should"),
    "a second document": ("sales.customers:\n", "a.b:\n---\nsource: x\n", 9, "not YAML: "),
    "no table": (GOOD[GOOD.index("  public") :], "  {}\n", 3, "tables: names no table; add one"),
    "tables as a list": (GOOD[GOOD.index("  public") :], "  - public.orders\n", 3, "tables: must be a mapping"),
    "no character of YAML": ("region", "re\x00gion", 7, "not YAML: character 0x0000 is not allowed"),
    "an impossible escape": ("region = 'EU'", '"\\UFFFFFFFF"', 1, "not YAML: "),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_each_problem_is_named_with_its_line_and_way_out(tmp_path: Path, name: str) -> None:
    good, bad, line, text = BAD[name]
    assert good in GOOD
    found = problems_of(tmp_path, GOOD.replace(good, bad, 1))
    assert any(problem.startswith(f"p.yml:{line}: ") and text in problem for problem in found), found
    assert all(LINE.fullmatch(problem) for problem in found)


def test_all_problems_at_once_in_the_order_of_their_lines(tmp_path: Path) -> None:
    text = "source: Shop\ntables:\n  orders: {mode: copy, serve: 1}\n  public.a: 3\n  public.a:\nextra: 1\n"
    found = problems_of(tmp_path, text)
    assert [problem.split(": ")[1] for problem in found] == [
        "source", "connection", "tables.orders", "tables.orders.mode", "tables.orders.serve", "tables.public.a",
        "tables.public.a", "extra",
    ]  # fmt: skip
    lines = [int(problem.split(":")[1]) for problem in found]
    assert lines == sorted(lines) == [1, 1, 3, 3, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "p.yml:1: must be a mapping with the keys source, connection and tables"),
        (b"# nothing\n", "p.yml:1: must be a mapping"),
        (b"source: shop\nconnection: \xff\n", "p.yml:2: byte 0xff is not UTF-8"),
        (b"x" * (LONGEST + 1), "p.yml:1: has 262145 bytes"),
        (b"[" * 5000, "p.yml:1: more than 20 lists or mappings"),
        (b"a: &a [x]\nb: &b [*a, *a]\n", "p.yml:1: anchors (&) and aliases (*)"),
        (b"%YAML " + b"9" * 5000 + b".1\n---\n", "p.yml:1: not YAML: "),
    ],
)
def test_files_that_are_no_pipelines(tmp_path: Path, data: bytes, text: str) -> None:
    (found,) = problems_of(tmp_path, data)
    assert found.startswith(text)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "folder.yml").mkdir()
    (tmp_path / "dangling.yml").symlink_to("nowhere")
    _, found = read_all(sorted(tmp_path.iterdir()))
    assert found[0].startswith("dangling.yml:1: cannot be read: No such file or directory")
    assert found[1].startswith("folder.yml:1: is not a file")


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    assert problems_of(tmp_path, b"\xef\xbb\xbf" + GOOD.encode()) == []


def test_a_bad_file_does_not_keep_the_others_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = GOOD.replace("source: shop", "source: other")
    for name, text in (("a.yml", GOOD), ("b.yaml", other), ("c.yml", "x"), ("d.yml", GOOD), ("e.txt", "x")):
        (tmp_path / name).write_text(text)
    assert [pipeline.source for pipeline in load_all(tmp_path)] == ["other"]
    _, found = read_all(sorted(tmp_path.glob("*.y*ml")))
    assert [problem.partition(";")[0] for problem in found] == [
        "c.yml:1: must be a mapping with the keys source, connection and tables",
        "a.yml:1: source: shop is claimed by d.yml too",
        "d.yml:1: source: shop is claimed by a.yml too",
    ]
    with pytest.raises(PipelineError, match=r"has source: nosuch"):
        by_source("nosuch")


def test_one_name_in_clickhouse_is_served_once(tmp_path: Path) -> None:
    text = "source: {}\nconnection: db\ntables:\n  public.orders: {{serve: true}}\n"
    for source in ("one", "two"):
        (tmp_path / f"{source}.yml").write_text(text.format(source))
    usable, (found,) = read_all(sorted(tmp_path.iterdir()))
    assert [pipeline.source for pipeline in usable] == ["one", "two"], "a second file does not stop the first one's DAGs"
    assert found.startswith("two.yml:4: tables.public.orders: would be served as orders, and so would one.yml:4:")


def test_the_schema_is_that_of_the_model() -> None:
    assert json.loads(SCHEMA.read_text()) == schema(), "run: python -m include.cdc.pipelines > include/pipelines/schema.json"
    first = (ROOT / "include" / "pipelines" / "flights.yml").read_text().splitlines()[0]
    assert first == f"# yaml-language-server: $schema={SCHEMA.name}"


# ── fuzz ─────────────────────────────────────────────────────────────────────────────────────────────────

fuzz = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
WORDS = ("source", "connection", "tables", "public.orders", "mode", "mirror", "columns", "- ", ": ", "\n", "  ", "\t", "{", "}")
WORDS += ("[", "]", "&a ", "*a", "<<", "!!", "!x ", "? ", "|\n", ">\n", "'", '"', "#", "---\n", "...\n")
WORDS += ("%YAML 1.1\n", "\\U0011FFFF", "~", "=", ",")
WORDS += ("0x" + "f" * 50, "9" * 5000, "1:2:3", "2024-13-99", "0b", ".inf", "\ufeff", "\x00", "\ud800", "\x85", "\u2028")
yamlish = st.lists(st.sampled_from(WORDS) | st.text(max_size=5), max_size=25).map("".join)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.dates() | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=4),
    max_leaves=12,
)


def only_problems(tmp_path: Path, data: str | bytes) -> None:
    for problem in problems_of(tmp_path, data):
        assert LINE.fullmatch(problem) and problem.isprintable(), problem


@fuzz
@given(yamlish)
def test_texts_like_yaml(tmp_path: Path, text: str) -> None:
    only_problems(tmp_path, text)


@fuzz
@given(st.binary(max_size=200))
def test_bytes(tmp_path: Path, data: bytes) -> None:
    only_problems(tmp_path, data)


@fuzz
@given(st.data())
def test_a_good_file_after_mutations(tmp_path: Path, data: st.DataObject) -> None:
    text = GOOD
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.sampled_from(WORDS) | st.text(max_size=3)) + text[at + data.draw(st.integers(0, 6)) :]
    only_problems(tmp_path, text)


@fuzz
@given(
    st.fixed_dictionaries(
        {"source": st.just("shop") | json_values, "connection": st.just("shop_db") | json_values},
        optional={
            "tables": json_values
            | st.dictionaries(
                st.sampled_from(("public.a", "public.A", "public.a_changelog", "a", "")) | st.text(max_size=5),
                json_values
                | st.fixed_dictionaries({}, optional={key: json_values for key in ("mode", "serve", "columns", "where", "x")}),
                max_size=4,
            ),
            "x": json_values,
        },
    )
)
def test_any_values_in_the_model(tmp_path: Path, value: dict[str, Any]) -> None:
    only_problems(tmp_path, yaml.safe_dump(value, allow_unicode=True))
