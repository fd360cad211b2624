"""People of the realm, made for a test by Keycloak's admin API and deleted afterwards, and the ways in which they sign in."""

from __future__ import annotations

import base64
import hashlib
import html
import re
import secrets
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx

from include.platform.endpoints import Endpoint
from include.platform.realm import REALM, Admin, described
from include.platform.settings import DOCKER_ADDRESSES, ROOT
from tests.compose_platform import Compose

CA = ROOT / "docker" / "certificates" / "ca.crt"


def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(CA))


@dataclass(frozen=True)
class Site:
    """Where the platform's services are for somebody at its host."""

    compose: Compose

    def address(self, port: str) -> tuple[str, int]:
        """As browsers type it: the name is the one in Keycloak's address."""
        container, number = DOCKER_ADDRESSES[port]
        published = self.compose.compose("port", container, str(number)).split()[-1]
        return self.host, int(published.rpartition(":")[2])

    def url(self, port: str) -> str:
        return "https://{}:{}".format(*self.address(port))

    @cached_property
    def keycloak(self) -> str:
        return self.compose.services["keycloak"]["environment"]["KEYCLOAK_URL"]

    @property
    def host(self) -> str:
        return urlsplit(self.keycloak).hostname or ""

    @property
    def issuer(self) -> str:
        return f"{self.keycloak}/realms/{REALM}"

    @contextmanager
    def admin(self) -> Iterator[Admin]:
        at = urlsplit(self.keycloak)
        secret = self.compose.secrets()["keycloak_admin"]
        endpoint = Endpoint("keycloak", "http", at.hostname or "", at.port or 443, "admin", secret, extra={"scheme": "https"})
        with Admin(endpoint, verify=trusting()) as admin:
            yield admin

    @contextmanager
    def people(self, groups: dict[str, str | None]) -> Iterator[dict[str, Person]]:
        """A person for each name, in the group that is given with it, or in none."""
        run = secrets.token_hex(3)
        made: dict[str, str] = {}
        with self.admin() as admin:
            try:
                found = {}
                for name, group in groups.items():
                    person = Person(self, f"test-{name}-{run}", secrets.token_urlsafe(24))
                    body = {"username": person.name, "enabled": True, "email": f"{person.name}@shudl.invalid"}
                    body |= {"firstName": "Test", "lastName": name, "emailVerified": True, "groups": [group] if group else []}
                    credentials = [{"type": "password", "value": person.password, "temporary": False}]
                    admin.send("POST", f"/{REALM}/users", {**body, "credentials": credentials})
                    made[name] = admin.find(f"/{REALM}/users?username={person.name}&exact=true")[0]["id"]
                    found[name] = person
                yield found
            finally:
                for own in made.values():
                    admin.send("DELETE", f"/{REALM}/users/{own}", None)


@dataclass
class Person:
    """Somebody who signs in."""

    site: Site
    name: str
    password: str = field(repr=False)
    _tokens: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)

    def browser(self) -> httpx.Client:
        return httpx.Client(verify=trusting(), timeout=30, follow_redirects=False)

    def fill_in(self, http: httpx.Client, answer: httpx.Response) -> httpx.Response:
        """Follow redirects to Keycloak's page, sign in there, and return the answer that leads away from it."""
        answer = follow(http, answer)
        form = re.search(r'<form[^>]*action="([^"]+)"', answer.text)
        assert answer.url.host == self.site.host and form, f"{answer.url}: HTTP {answer.status_code}, and no page to sign in"
        data = {"username": self.name, "password": self.password, "credentialId": ""}
        answer = http.post(html.unescape(form[1]), data=data)
        assert answer.is_redirect, f"{self.name} cannot sign in: {re.findall(r'(?s)kc-feedback-text[^>]*>(.*?)<', answer.text)}"
        return answer

    def token(self, client: str) -> dict[str, Any]:
        """What Keycloak gives ``client`` for this person: the authorization code flow, with PKCE."""
        if client in self._tokens:
            return self._tokens[client]
        verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(16)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        redirect, secret = self.client(client)
        params = {"client_id": client, "response_type": "code", "scope": "openid", "redirect_uri": redirect, "state": state}
        params |= {"code_challenge": challenge, "code_challenge_method": "S256"}
        with self.browser() as http:
            answer = self.fill_in(http, http.get(f"{self.site.issuer}/protocol/openid-connect/auth", params=params))
            back = parse_qs(urlsplit(answer.headers["location"]).query)
            assert back["state"] == [state] and answer.headers["location"].startswith(redirect), answer.headers["location"]
            form = {"grant_type": "authorization_code", "code": back["code"][0], "redirect_uri": redirect}
            form |= {"code_verifier": verifier, "client_id": client} | ({"client_secret": secret} if secret else {})
            got = http.post(f"{self.site.issuer}/protocol/openid-connect/token", data=form)
        assert got.is_success, got.text
        return self._tokens.setdefault(client, got.json())

    def client(self, client: str) -> tuple[str, str]:
        """Where a sign-in for ``client`` may return to, and its secret."""
        if client == "security-admin-console":
            return f"{self.site.keycloak}/admin/{REALM}/console/", ""
        found = next(one for one in described()["clients"] if one["clientId"] == client)
        with self.site.admin() as admin:
            redirects = admin.find(f"/{REALM}/clients?clientId={client}")[0]["redirectUris"]
        redirect = next(uri for uri in redirects if urlsplit(uri).hostname == self.site.host or found.get("publicClient"))
        secret = "" if found.get("publicClient") else self.site.compose.secrets()[f"oidc_{client.replace('-', '_')}"]
        return redirect, secret

    def bearer(self, client: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(client)['access_token']}"}

    def userinfo(self, client: str) -> dict[str, Any]:
        with self.browser() as http:
            answer = http.get(f"{self.site.issuer}/protocol/openid-connect/userinfo", headers=self.bearer(client))
        return answer.raise_for_status().json()

    @cached_property
    def airflow(self) -> httpx.Client:
        """A browser that is signed in to Airflow."""
        http = self.browser()
        http.base_url = self.site.url("airflow")
        answer = self.fill_in(http, http.get("/auth/login"))
        self.landed = follow(http, answer)
        return http


def follow(http: httpx.Client, answer: httpx.Response) -> httpx.Response:
    """What is at the end of the redirects."""
    for _ in range(10):
        if not answer.is_redirect:
            return answer
        answer = http.get(urljoin(str(answer.url), answer.headers["location"]))
    raise AssertionError(f"more than 10 redirects, the last to {answer.headers['location']}")
