"""The dbt project as its manifests have it, and what holds it together with pipelines, profiles and Airflow."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.cdc.pipelines import Pipeline, Table, load_all
from include.platform.endpoints import local_endpoints
from include.platform.settings import Settings
from include.serving import dbt, manifest
from include.serving.publish import NEXT, PublishError, check_served
from tests.expected_marts import KEYS

MARTS = set(KEYS)
LANDED = {"otp_by_aircraft"}
"""Marts of what files became: publish_aircraft publishes them."""


@pytest.fixture(scope="module")
def manifests() -> dict[str, dict[str, Any]]:
    manifest.make_manifests()
    return {target: json.loads(dbt.manifest_path(target).read_text()) for target in dbt.TARGETS}


def enabled(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The nodes of the target: those of the other one are there, too, but disabled."""
    return [node for node in manifest["nodes"].values() if node["config"]["enabled"]]


def models(manifest: dict[str, Any], schema: str) -> dict[str, dict[str, Any]]:
    """Models of a schema by the name of their table."""
    nodes = [node for node in enabled(manifest) if node["resource_type"] == "model"]
    return {node["alias"]: node for node in nodes if node["schema"] == schema}


def checks(manifest: dict[str, Any], model: dict[str, Any]) -> set[str]:
    """The generic tests of a model, by name."""
    return {node["test_metadata"]["name"] for node in enabled(manifest) if node.get("attached_node") == model["unique_id"]}


def test_manifests_are_made_once(manifests: dict[str, Any]) -> None:
    assert manifest.make_manifests() == []


def test_a_changed_project_makes_new_manifests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("models", "macros", "tests"):
        (tmp_path / name).mkdir()
    (tmp_path / "models" / "a.sql").write_text("select 1")
    monkeypatch.setattr(manifest, "PROJECT", tmp_path)
    monkeypatch.setattr(manifest, "ROOT", tmp_path)
    monkeypatch.setattr(manifest, "DBT_LOCK", tmp_path / "models" / "a.sql")
    before = manifest.fingerprint()
    assert manifest.fingerprint() == before
    (tmp_path / "models" / "a.sql").write_text("select 2")
    assert manifest.fingerprint() != before


def test_a_missing_manifest_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(dbt.ManifestMissing, match=r"trino/manifest.json is missing: run `./shudl up`"):
        dbt.manifest_path("trino", Settings(home=tmp_path, port_base=30000))


def test_marts_are_tables_under_contract(manifests: dict[str, Any]) -> None:
    marts = models(manifests["trino"], "marts")
    assert set(marts) == MARTS | LANDED
    for name, model in (*marts.items(), *models(manifests["trino"], "intermediate").items()):
        config = model["config"]
        assert (config["materialized"], config["on_table_exists"]) == ("table", "replace"), name
        assert config["contract"]["enforced"], name
        assert model["description"], name
        assert all(column["data_type"] for column in model["columns"].values()), name
        assert checks(manifests["trino"], model) & {"unique", "unique_columns"}, f"{name} has no test of its key"


def test_only_one_model_reads_a_moving_mirror_of_flights(manifests: dict[str, Any]) -> None:
    """Marts that read it each on its own would speak of different moments."""
    nodes = enabled(manifests["trino"])
    readers = [node["name"] for node in nodes if "source.shudl.cdc_flights.flights" in node["depends_on"]["nodes"]]
    assert readers == ["stg_flights"]
    assert [node["name"] for node in nodes if "model.shudl.stg_flights" in node["depends_on"]["nodes"]] == ["int_flights"]


def test_every_mart_and_every_served_mirror_is_copied(manifests: dict[str, Any]) -> None:
    served = dbt.served_tables()
    check_served(load_all(), [table for tables in served.values() for table in tables])
    assert served == {**{mart: [f"marts.{mart}"] for mart in MARTS}, "flights": ["cdc_flights.flights"]}
    landed = dbt.served_tables(tag="aircraft")
    assert landed == {mart: [f"marts.{mart}"] for mart in LANDED}
    copies = models(manifests["clickhouse"], NEXT)
    assert set(copies) == set(served) | set(landed)
    for name, model in copies.items():
        assert model["config"]["order_by"], name
        assert "same_as_lake" in checks(manifests["clickhouse"], model), name


def test_a_served_table_without_a_model_is_named() -> None:
    pipeline = Pipeline(source="shop", connection="shop_db", tables={"public.orders": Table(serve=True), "public.notes": Table()})
    with pytest.raises(PublishError, match=r"^shop: public.orders has serve: true, but no model in .* reads cdc_shop.orders$"):
        check_served([pipeline], ["marts.otp_by_hour"])
    check_served([pipeline], ["cdc_shop.orders"])


def test_the_environment_is_what_profiles_read(tmp_path: Path) -> None:
    text = dbt.PROFILES.read_text()
    s = Settings(home=tmp_path, port_base=30000)
    environment = dbt.environment(local_endpoints(s), s)
    given = {name for name in environment if re.match("DBT_(TRINO|CLICKHOUSE|ENV)_", name)}
    assert set(re.findall(r"env_var\('(\w+)'", text)) == given
    profile = yaml.safe_load(text)[dbt.PROFILE]
    assert set(profile["outputs"]) == set(dbt.TARGETS)
    for output in profile["outputs"].values():
        assert all(output[key].startswith("{{ env_var(") for key in ("host", "port", "user", "password"))
    passwords = {endpoint.password for endpoint in local_endpoints(s).values() if endpoint.password}
    secrets = {name for name, value in environment.items() if value in passwords}
    assert secrets and all(name.startswith("DBT_ENV_SECRET_") for name in secrets)
