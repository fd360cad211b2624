"""Keycloak's realm ``shudl``: who people are, which of four roles they have, and where they may sign in.

A role is what services ask for; a group of its name is where people are put. Managing the realm itself belongs to the group
``admin`` and to no role: a service that is shown an admin's token cannot use it on Keycloak.

It is code: ``docker/services/keycloak/realm.json``, in the words of Keycloak's admin API. :func:`ensure_realm` makes the
realm so and does nothing where it is; users and their groups are people's, and stay. ``python -m include.platform.realm``
does it from a container. Secrets are files: ``oidc_<client>`` of each client, ``oidc_admin`` the first user's password.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from include.platform.endpoints import Endpoint, Endpoints, local_endpoints
from include.platform.settings import ROOT, Settings, settings

FILE = ROOT / "docker" / "services" / "keycloak" / "realm.json"
REALM = "shudl"
TIMEOUT_S = 120
"""Making a realm takes 3 s, on a busy machine more than 20: keys are made for it."""
WAIT_S = 300
"""How long the entry point waits for Keycloak."""


class RealmError(RuntimeError):
    """Keycloak refuses what the realm needs; the text has its own reason."""


def described() -> dict[str, Any]:
    """``{realm, roles, groups, clients, firstUser}`` of the file."""
    return json.loads(FILE.read_text())


def secret_name(client: Mapping[str, Any]) -> str:
    """Name of the secret of a client; empty for one that has none."""
    return "" if client.get("publicClient") else f"oidc_{client['clientId'].replace('-', '_')}"


def hosts(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The names by which browsers reach the platform: that of Keycloak, and those of ``SHUDL_PUBLIC_NAMES``."""
    keycloak = urlsplit(environment.get("OIDC_ISSUER", "")).hostname or "localhost"
    return list(dict.fromkeys([keycloak, *re.split(r"[\s,]+", environment.get("SHUDL_PUBLIC_NAMES", "")), "localhost"]))


def redirects(client: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> list[str]:
    """The addresses to which a client's sign-in may return."""
    ports = {key: value for key, value in environment.items() if key.endswith("_PUBLISHED_PORT")}
    names = [host for host in hosts(environment) if host]
    return sorted({uri.format(host=host, **ports) for uri in client["redirectUris"] for host in names})


class Admin:
    """Keycloak's admin API, signed in as its own administrator; again when that has run out, after a minute."""

    def __init__(self, endpoint: Endpoint, verify: Any = True) -> None:
        self._endpoint = endpoint
        self._http = httpx.Client(base_url=endpoint.url, timeout=TIMEOUT_S, verify=verify)
        self._sign_in()

    def _sign_in(self) -> None:
        who = {"username": self._endpoint.login, "password": self._endpoint.password}
        form = {"grant_type": "password", "client_id": "admin-cli", **who}
        answer = self._http.post("/realms/master/protocol/openid-connect/token", data=form)
        token = self._checked(answer, "sign in as its administrator")["access_token"]
        self._http.headers["Authorization"] = f"Bearer {token}"

    def _ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        answer = self._http.request(method, f"/admin/realms{path}", json=body)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            self._sign_in()
            answer = self._http.request(method, f"/admin/realms{path}", json=body)
        return answer

    def __enter__(self) -> Admin:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    @staticmethod
    def _checked(answer: httpx.Response, what: str) -> Any:
        if answer.is_error:
            raise RealmError(f"Keycloak: {what}: HTTP {answer.status_code}: {answer.text[:300]}")
        return answer.json() if answer.content else None

    def find(self, path: str) -> Any | None:
        """What is at ``path`` of the admin API; None where nothing is."""
        answer = self._ask("GET", path)
        return None if answer.status_code == 404 else self._checked(answer, f"GET {path}")

    def send(self, method: str, path: str, body: Any) -> None:
        self._checked(self._ask(method, path, body), f"{method} {path}")


def ensure_realm(endpoints: Endpoints, s: Settings = settings) -> dict[str, int]:
    """Make the realm as the file says; how many roles and clients it has. Raises :class:`RealmError`, httpx.HTTPError."""
    wanted = described()
    base = f"/{REALM}"
    with Admin(endpoints["shudl_keycloak"]) as admin:
        if admin.find(base) is None:
            admin.send("POST", "", wanted["realm"])
        else:
            admin.send("PUT", base, wanted["realm"])
        ids = {client["clientId"]: _ensure_client(admin, base, client, s) for client in wanted["clients"]}
        for role in wanted["roles"]:
            _ensure_role(admin, base, role, ids)
        roles = [admin.find(f"{base}/roles/{role['name']}") for role in wanted["roles"]]
        for own in ids.values():
            admin.send("POST", f"{base}/clients/{own}/scope-mappings/realm", roles)
        for group in wanted["groups"]:
            _ensure_group(admin, base, group)
        _ensure_first_user(admin, base, wanted["firstUser"], s)
    return {"roles": len(wanted["roles"]), "clients": len(ids)}


def _ensure_client(admin: Admin, base: str, client: Mapping[str, Any], s: Settings) -> str:
    """The client's own id."""
    name = client["clientId"]
    body = {
        "clientId": name,
        "name": client["name"],
        "publicClient": bool(client.get("publicClient")),
        "standardFlowEnabled": True,
        "directAccessGrantsEnabled": False,
        "fullScopeAllowed": False,
        "redirectUris": redirects(client),
        "attributes": {**client.get("attributes", {}), "post.logout.redirect.uris": "+"},
    }
    if secret := secret_name(client):
        body["secret"] = s.secret(secret)
    found = admin.find(f"{base}/clients?clientId={name}")
    if found:
        admin.send("PUT", f"{base}/clients/{found[0]['id']}", {**found[0], **body})
    else:
        admin.send("POST", f"{base}/clients", body)
    own = admin.find(f"{base}/clients?clientId={name}")[0]["id"]
    for role in client.get("roles", ()):
        if admin.find(f"{base}/clients/{own}/roles/{role}") is None:
            admin.send("POST", f"{base}/clients/{own}/roles", {"name": role})
    there = {mapper["name"]: mapper for mapper in admin.find(f"{base}/clients/{own}/protocol-mappers/models")}
    for mapper in mappers(client):
        path = f"{base}/clients/{own}/protocol-mappers/models"
        if found := there.get(mapper["name"]):
            admin.send("PUT", f"{path}/{found['id']}", {**mapper, "id": found["id"]})
        else:
            admin.send("POST", path, mapper)
    return own


def mappers(client: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What tokens of this client say beside the usual: the roles, for whom it is, and for MinIO its policies."""
    everywhere = {"access.token.claim": "true", "id.token.claim": "true", "userinfo.token.claim": "true"}
    many = {**everywhere, "multivalued": "true", "jsonType.label": "String"}
    audience = {"included.client.audience": client["clientId"], "access.token.claim": "true", "id.token.claim": "false"}
    made = [
        ("roles", "oidc-usermodel-realm-role-mapper", {**many, "claim.name": "roles"}),
        ("audience", "oidc-audience-mapper", audience),
    ]
    if client.get("roles"):
        policy = {**many, "claim.name": "policy", "usermodel.clientRoleMapping.clientId": client["clientId"]}
        made.append(("policy", "oidc-usermodel-client-role-mapper", policy))
    return [
        {"name": name, "protocol": "openid-connect", "protocolMapper": mapper, "config": config} for name, mapper, config in made
    ]


def _ensure_role(admin: Admin, base: str, role: Mapping[str, Any], clients: Mapping[str, str]) -> None:
    path = f"{base}/roles/{role['name']}"
    if admin.find(path) is None:
        admin.send("POST", f"{base}/roles", {"name": role["name"], "description": role["description"]})
    parts = [admin.find(f"{base}/roles/{name}") for name in role.get("includes", ())]
    for client, names in role.get("clientRoles", {}).items():
        parts += [admin.find(f"{base}/clients/{clients[client]}/roles/{name}") for name in names]
    have = {part["id"] for part in admin.find(f"{path}/composites")}
    if missing := [part for part in parts if part["id"] not in have]:
        admin.send("POST", f"{path}/composites", missing)


def _ensure_group(admin: Admin, base: str, group: Mapping[str, Any]) -> None:
    name = group["name"]
    if not (found := admin.find(f"{base}/groups?search={name}&exact=true")):
        admin.send("POST", f"{base}/groups", {"name": name})
        found = admin.find(f"{base}/groups?search={name}&exact=true")
    mappings = f"{base}/groups/{found[0]['id']}/role-mappings"
    admin.send("POST", f"{mappings}/realm", [admin.find(f"{base}/roles/{group['role']}")])
    for client, roles in group.get("clientRoles", {}).items():
        own = admin.find(f"{base}/clients?clientId={client}")[0]["id"]
        admin.send("POST", f"{mappings}/clients/{own}", [admin.find(f"{base}/clients/{own}/roles/{role}") for role in roles])


def _ensure_first_user(admin: Admin, base: str, user: Mapping[str, str], s: Settings) -> None:
    """Made in a realm without users; whoever removes it later does not find it again."""
    if admin.find(f"{base}/users?max=1"):
        return
    password = {"type": "password", "value": s.secret("oidc_admin"), "temporary": False}
    name = user["username"]
    body = {"username": name, "enabled": True, "firstName": "First", "lastName": "Admin", "email": f"{name}@shudl.invalid"}
    admin.send("POST", f"{base}/users", {**body, "emailVerified": True, "credentials": [password], "groups": [user["group"]]})


def main() -> int:
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            print(ensure_realm(local_endpoints()))
            return 0
        except RealmError as error:
            print(error, file=sys.stderr)
            return 1
        except httpx.HTTPError as error:
            if time.monotonic() > deadline:
                print(f"Keycloak does not answer after {WAIT_S} s: {error}", file=sys.stderr)
                return 1
            time.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
