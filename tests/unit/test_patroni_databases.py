"""The databases and roles that Patroni's primary is given (docker/services/patroni/databases.py)."""

from __future__ import annotations

import importlib.util

import pytest

from include.platform.settings import ROOT

HERE = ROOT / "docker" / "services" / "patroni"
SPEC = importlib.util.spec_from_file_location("patroni_databases", HERE / "databases.py")
databases = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(databases)

VERIFIER = (
    "SCRAM-SHA-256$4096:vaCzMAaXMOlSGmLWBXr1Ww==$gTrOaLAcsAWAbYbcRLvm1QT3u6GM35e3I+I3CYQMpOw=:"
    "v5IcW1G49pnNTRapMnLvGrgEly/wPCLaOE7NvQGpUgI="
)
"""As PostgreSQL 17 stored the password `correct horse`."""


@pytest.mark.parametrize(
    ("verifier", "password", "same"),
    [
        (VERIFIER, "correct horse", True),
        (VERIFIER, "correct horse ", False),
        (VERIFIER, "", False),
        (None, "correct horse", False),
        ("md5a3556571e93b0d20722ba62be61e8c2d", "correct horse", False),
    ],
)
def test_a_password_is_held_against_its_verifier(verifier: str | None, password: str, same: bool) -> None:
    assert databases.verifies(verifier, password) is same


def test_an_empty_password_is_refused_by_the_name_of_its_file(monkeypatch, tmp_path) -> None:
    (tmp_path / "empty").write_text("\n")
    monkeypatch.setenv("POSTGRES_FLIGHTS_PASSWORD_FILE", str(tmp_path / "empty"))
    with pytest.raises(ValueError, match=r"POSTGRES_FLIGHTS_PASSWORD_FILE=.*/empty is empty"):
        databases.password("POSTGRES_FLIGHTS_PASSWORD_FILE")


def test_the_entrypoint_asks_for_every_password_that_is_read() -> None:
    asked = " ".join(
        line for line in (HERE / "entrypoint.sh").read_text().replace("\\\n", "").splitlines() if line[:7] == "secret "
    )
    assert {variable.removesuffix("_FILE") for _, variable in databases.ROLES.values()} <= set(asked.split())


def test_every_database_has_the_role_that_owns_it() -> None:
    assert set(databases.DATABASES) <= set(databases.ROLES) and set(databases.PATRONI) <= set(databases.ROLES)
