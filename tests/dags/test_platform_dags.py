"""The DAGs of the platform are the service catalogue."""

from __future__ import annotations

from typing import Any

import pytest

from include.platform.catalog import LAYERS, SERVICES

ID = {(s.name, deed): f"{s.layer}.{s.name}.{deed}" for s in SERVICES for deed in ("start", "healthy", "works")}


@pytest.fixture
def bootstrap(dags: dict[str, Any]) -> dict[str, Any]:
    return dags["platform_bootstrap"]["tasks"]


def test_every_service_is_in_a_layer_and_in_the_dag(bootstrap: dict[str, Any]) -> None:
    assert {service.layer for service in SERVICES} == set(LAYERS)
    assert set(bootstrap) == {*ID.values(), "evidence"}


@pytest.mark.parametrize("service", SERVICES, ids=lambda s: s.name)
def test_a_service_waits_for_what_the_catalogue_says_and_nothing_else(bootstrap: dict[str, Any], service: Any) -> None:
    upstream = {deed: set(bootstrap[ID[service.name, deed]]["upstream"]) for deed in ("start", "healthy", "works")}
    assert upstream["start"] == {ID[needed, "works"] for needed in service.needs}
    assert upstream["healthy"] == {ID[service.name, "start"]}
    assert upstream["works"] == {ID[name, "healthy"] for name in (service.name, *service.check_needs)}


def test_evidence_is_written_whatever_happened(bootstrap: dict[str, Any]) -> None:
    assert bootstrap["evidence"]["rule"] == "all_done"
    assert set(bootstrap["evidence"]["upstream"]) == {ID[service.name, "works"] for service in SERVICES}


def test_stop_is_the_reverse(dags: dict[str, Any]) -> None:
    tasks = dags["platform_stop"]["tasks"]
    needed_by = {s.name: {other.name for other in SERVICES if s.name in (*other.needs, *other.check_needs)} for s in SERVICES}
    assert {name: set(seen["upstream"]) for name, seen in tasks.items()} == needed_by
    assert {seen["rule"] for seen in tasks.values()} == {"all_done"}
