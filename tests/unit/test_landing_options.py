"""Pipeline files of kind landing: what is wrong with one is said with its line, and keeps no other folder's files waiting."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from include.cdc.pipelines import load, read_all
from include.ingest.deadletters import Threshold
from include.ingest.landing_options import Folder, read_folders
from include.platform.settings import ROOT
from tests.pipeline_files import problems_of

(GOOD,) = re.findall(r"```yaml\n(kind: landing\n.*?)```", (ROOT / "docs" / "landing.md").read_text(), re.DOTALL)
"""The guide's example, which has every key."""


def test_the_example_of_the_guide(tmp_path: Path) -> None:
    (tmp_path / "p.yml").write_text(GOOD)
    folder = load(tmp_path / "p.yml")
    assert isinstance(folder, Folder)
    assert set(Folder.model_fields) == folder.model_fields_set, "a key that the guide does not show"
    assert (folder.table, folder.header, folder.nulls, folder.longest_line_mb) == ("raw.aircraft", "auto", ("", "NA"), 16)
    assert folder.threshold == Threshold(0, 0.05) and folder.encoding == "iso8859-1"
    assert read_folders(tmp_path) == ({"aircraft": folder}, {})


@pytest.mark.parametrize(
    ("good", "bad", "line", "text"),
    [
        ("encoding: latin-1", "encoding: latin-99", 7, "encoding: no such encoding: latin-99"),
        ("{year: long}", "{year: int}", 9, "types: year: int is none of string, long, "),
        ("delimiter:", "delimeter:", 4, "delimeter: unknown key; did you mean delimiter?"),
        ("share: 0.05", "shares: 0.05", 11, "dead_letters.shares: unknown key; did you mean share?"),
        ("format: auto", "format: xml", 3, "format: must be 'auto', 'csv', 'jsonl', 'parquet' or 'object', not 'xml'"),
        ("[tailnum, year]", "[tailnum, 2013]", 6, "columns.1: must be a text, not 2013 (a number); write it in quotes"),
        ("[tailnum, year]", "tailnum", 6, "columns: must be a list, for example [id, name], not 'tailnum'"),
        ("source: aircraft", "source: new/aircraft", 2, "source: 'new/aircraft' is no folder"),
        ("source: aircraft", "source: dead_letters", 2, "source: would be raw.dead_letters, which is ShuDL's own"),
        ("longest_line_mb: 16", "longest_line_mb: 0", 12, "longest_line_mb: Input should be greater than or equal to 1"),
    ],
)
def test_each_problem_has_its_line(tmp_path: Path, good: str, bad: str, line: int, text: str) -> None:
    assert good in GOOD
    found = problems_of(tmp_path, GOOD.replace(good, bad, 1))
    assert any(problem.startswith(f"p.yml:{line}: {text}") for problem in found), found


def test_a_mistake_is_told_by_check_and_holds_up_its_own_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("kind: landing\nsource: good\n")
    (tmp_path / "b.yml").write_text("kind: landing\nsource: bad\nformat: xml\n")
    found, problems = read_folders(tmp_path)
    assert list(found) == ["good"] and list(problems) == ["bad"]
    assert read_all(sorted(tmp_path.iterdir())) == ([], problems["bad"])


def test_two_files_about_one_folder_are_refused(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.yml").write_text("kind: landing\nsource: x\n")
    found, problems = read_folders(tmp_path)
    assert not found and len(problems["x"]) == 2
    assert problems["x"][0].startswith("a.yml:2: source: x is claimed by b.yml too")


def test_a_folder_may_be_named_like_a_database_and_not_write_a_connectors_table(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("source: users\nconnection: c\ntables: {public.t: }\n")
    (tmp_path / "b.yml").write_text("kind: landing\nsource: users\n")
    assert list(read_folders(tmp_path)[0]) == ["users"]
    (tmp_path / "a.yml").write_text("kind: airbyte\nsource: s\nconnector: c\nversion: '1'\nstreams: {users: }\n")
    _, problems = read_folders(tmp_path)
    assert problems["users"][0].startswith("b.yml:2: source: would be raw.users, and so would a.yml:5: streams.users")
