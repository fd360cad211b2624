"""The DAG files as Airflow reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from include.platform.settings import ROOT
from shudl.tags import Tag
from tests.dags.conftest import probe

DAG_IDS = {
    "cdc_flights",
    "check_pipelines",
    "demo_load",
    "demo_replay",
    "drill_postgres_failover",
    "drill_service",
    "ingest_landing",
    "platform_bootstrap",
    "platform_stop",
    "prove_flights",
    "publish_aircraft",
    "publish_flights",
    "replay_dead_letters",
}
"""Every DAG of the checkout. A DAG file that Airflow overlooks makes no import error: hence the exact set."""

SHOP = "kind: airbyte\nsource: shop\nconnector: airbyte-source-faker\nversion: 7.2.1\nstreams: {users: , purchases: }\n"
FILES = sorted(path.name for path in (ROOT / "dags").glob("*.py"))
WITHOUT_SOURCE = ("ingest.py",)
"""Files that make a DAG for each source, and of whose kind the checkout has none."""
LINES = 120
CPU_S = 5.0


def test_exact_set_of_dags(dags: dict[str, Any]) -> None:
    assert set(dags) == DAG_IDS


@pytest.mark.parametrize("name", FILES)
def test_file_is_read_without_io(files: dict[str, Any], name: str) -> None:
    file = files[name]
    assert not file["io"]
    assert not file["errors"], "\n".join(file["errors"])
    assert file["cpu_s"] < CPU_S
    assert file["dags"] or name in WITHOUT_SOURCE, f"{name} has no DAG"
    lines = len((ROOT / "dags" / name).read_text().splitlines())
    assert lines <= LINES, f"{name} has {lines} lines: move what does not say what runs and when to include/ or plugins/"


@pytest.mark.parametrize("name", FILES)
def test_file_is_named_as_its_dag(files: dict[str, Any], name: str) -> None:
    """``<dag_id>.py``, or ``<kind>.py`` where one file makes a DAG ``<kind>_<source>`` for each source."""
    stem = name.removesuffix(".py")
    assert all(dag_id == stem or dag_id.startswith(f"{stem}_") for dag_id in files[name]["dags"])
    assert not name.startswith("dbt_"), "dbt's plugin discovery imports modules of that name"


def test_dags_say_what_they_are(dags: dict[str, Any]) -> None:
    known = {str(tag) for tag in Tag}
    for dag_id, dag in dags.items():
        assert dag["tags"], f"{dag_id} has no tag"
        assert set(dag["tags"]) <= known, f"{dag_id}: add its tag to shudl.tags.Tag"
        assert dag["description"], f"{dag_id} has no description"
        assert dag["doc_md"], f"{dag_id} has no doc_md"
        if Tag.DEMO not in dag["tags"]:
            assert "**When it fails.**" in dag["doc_md"], f"{dag_id}: its doc_md has no triage notes"


def test_the_probe_sees_io(tmp_path: Path) -> None:
    """The test above can fail."""
    (tmp_path / "leaky.py").write_text(
        "from airflow.sdk import DAG\nimport socket\nopen('written', 'w')\nsocket.create_connection(('127.0.0.1', 9))\n"
    )
    seen = probe(tmp_path)["leaky.py"]
    assert seen["errors"] and "open" in seen["io"][0]
    assert not (tmp_path / "written").exists()


def test_a_bad_pipeline_file_is_shown_and_keeps_no_other_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "good.yml").write_text("source: good\nconnection: good_db\ntables: {public.orders: {mode: mirror}}\n")
    (tmp_path / "bad.yml").write_text("source: bad\nconnection: bad_db\ntables: {orders: {mode: mirror}}\n")
    monkeypatch.setenv("SHUDL_PIPELINES", str(tmp_path))
    (tmp_path / "shop.yml").write_text(SHOP)
    (tmp_path / "far.yml").write_text("kind: airbyte\nsource: far\nserver: ab\nserver_connection: x\nstreams: {a: }\n")
    seen = probe(ROOT / "dags")
    assert sorted(seen["ingest.py"]["dags"]) == ["ingest_far", "ingest_shop"] and not seen["ingest.py"]["errors"]
    assert list(seen["ingest.py"]["dags"]["ingest_far"]["tasks"]) == ["sync"]
    assert sorted(seen["ingest.py"]["dags"]["ingest_shop"]["tasks"]) == ["extract", "load"]
    assert list(seen["cdc.py"]["dags"]) == ["cdc_good"] and list(seen["prove.py"]["dags"]) == ["prove_good"]
    assert not seen["cdc.py"]["errors"] and not seen["prove.py"]["errors"]
    (error,) = seen["check_pipelines.py"]["errors"]
    assert "bad.yml:3: tables.orders: write tables as schema.table" in error
    assert "good" not in error.splitlines()[-1]
