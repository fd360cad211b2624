"""The realm's description, held to what services, secrets and the table of rights say. Live: tests/docker/test_sign_in.py."""

from __future__ import annotations

import configparser
import json
import re

import pytest
import yaml

from include.platform.realm import REALM, described, hosts, mappers, redirects, secret_name
from include.platform.settings import ROOT

SERVICES = ROOT / "docker" / "services"
COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
CLIENTS = {client["clientId"]: client for client in described()["clients"]}
ROLES = [role["name"] for role in described()["roles"]]
HERE = {
    "OIDC_ISSUER": "https://lake.example:8543/realms/shudl",
    "SHUDL_PUBLIC_NAMES": "lake.example, 10.0.0.7",
    **{
        name: "1234"
        for client in CLIENTS.values()
        for uri in client["redirectUris"]
        for name in re.findall(r"\{([A-Z_0-9]+)\}", uri)
    },
}


def test_it_holds_no_secret_and_no_password() -> None:
    assert not re.search(r"(?i)\"(secret|password|credentials|value)\"", (SERVICES / "keycloak" / "realm.json").read_text())


def test_each_client_has_a_secret_of_its_own_or_is_public() -> None:
    secrets = {name for name in COMPOSE["secrets"] if name.startswith("oidc_")}
    assert {secret_name(client) for client in CLIENTS.values()} - {""} | {"oidc_admin"} == secrets
    assert [name for name, client in CLIENTS.items() if client.get("publicClient")] == ["nessie"]


def test_airflow_knows_the_ports_to_which_sign_ins_return() -> None:
    told = COMPOSE["services"]["airflow-scheduler"]["environment"]
    assert {name for name in HERE if name.endswith("_PORT")} <= set(told)


def test_sign_ins_return_to_the_names_that_people_type() -> None:
    assert hosts(HERE) == ["lake.example", "10.0.0.7", "localhost"]
    assert redirects(CLIENTS["trino"], HERE) == [
        f"https://{host}:1234/oauth2/callback" for host in ("10.0.0.7", "lake.example", "localhost")
    ]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_token_says_for_whom_it_is_and_which_roles_are_held(client: str) -> None:
    made = {mapper["name"]: mapper["config"] for mapper in mappers(CLIENTS[client])}
    assert made["audience"]["included.client.audience"] == client
    assert made["roles"]["claim.name"] == "roles" and made["roles"]["userinfo.token.claim"] == "true"
    assert ("policy" in made) == (client == "minio")


def test_services_name_the_clients_and_roles_that_there_are() -> None:
    ini = configparser.RawConfigParser()
    ini.read(SERVICES / "grafana" / "grafana.ini")
    *_, kafka_ui = yaml.safe_load_all((SERVICES / "kafka-ui" / "config" / "application.yml").read_text())
    trino = (SERVICES / "trino" / "config" / "oidc.properties.template").read_text()
    nessie = (SERVICES / "nessie" / "config" / "oidc.properties.template").read_text()
    clients = {
        ini["auth.generic_oauth"]["client_id"],
        kafka_ui["auth"]["oauth2"]["client"]["keycloak"]["clientId"],
        *re.findall(r"client-id=(\S+)", trino + nessie),
    }
    assert clients | {"airflow", "minio"} == set(CLIENTS)
    rules = json.loads((SERVICES / "trino" / "config" / "rules.json").read_text())
    named = {rule["group"] for section in rules.values() for rule in section if "group" in rule}
    named |= {subject["value"] for role in kafka_ui["rbac"]["roles"] for subject in role["subjects"]}
    named |= set(re.findall(r"'(\w+)' in roles", nessie))
    named |= set(re.findall(r"roles\[\*\], '(\w+)'", ini["auth.generic_oauth"]["role_attribute_path"]))
    assert named == set(ROLES)


def test_a_role_includes_those_before_it_and_none_administers_the_realm() -> None:
    assert ROLES == ["viewer", "analyst", "engineer", "admin"]
    for before, role in zip(ROLES, described()["roles"][1:], strict=False):
        assert role["includes"] == [before] and "realm-management" not in role.get("clientRoles", {})
    assert {group["name"]: group["role"] for group in described()["groups"]} == {role: role for role in ROLES}


def test_one_setting_says_where_keycloak_is() -> None:
    """Everybody is told the same issuer, made of KEYCLOAK_URL."""
    issuer = f"${{KEYCLOAK_URL:-https://localhost:8543}}/realms/{REALM}"
    told = {
        name: service["environment"]["OIDC_ISSUER"]
        for name, service in COMPOSE["services"].items()
        if "OIDC_ISSUER" in (service.get("environment") or {})
    }
    assert {"airflow-api-server", "trino", "nessie-access", "s3", "grafana", "kafka-ui"} <= set(told)
    assert set(told.values()) == {issuer}
