"""How to tell that the services which only the docker runtime has are healthy, and that they work.

:mod:`include.platform.checks` asks here for what it does not know itself, in the same two ways.
"""

from __future__ import annotations

import base64
import os
import ssl
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from include.lake.catalog import BRANCH
from include.platform.endpoints import Endpoint, Endpoints
from include.platform.settings import settings

HEALTH_TIMEOUT_S = 4.0
STANDBY_S = 120
"""How long a standby may take to copy the primary before the cluster counts as not working."""


def _client(endpoint: Endpoint, **options: Any) -> httpx.Client:
    return httpx.Client(base_url=endpoint.url, timeout=HEALTH_TIMEOUT_S, **options)


def _answers(path: str) -> Callable[[Endpoint], object]:
    def check(endpoint: Endpoint) -> None:
        with _client(endpoint) as http:
            http.get(path).raise_for_status()

    return check


def _members(endpoint: Endpoint) -> list[str]:
    """Addresses of each member of a cluster: its connection's extra names their hosts."""
    hosts = endpoint.extra.get("members", endpoint.host).split(",")
    return [f"{endpoint.extra.get('scheme', 'http')}://{host}:{endpoint.port}" for host in hosts]


# ── etcd ─────────────────────────────────────────────────────────────────────────────────────────────────


def _etcd(url: str) -> httpx.Client:
    """A client that shows this container's certificate: etcd answers nobody else."""
    context = ssl.create_default_context()
    if "TLS_CERT_FILE" in os.environ:
        context.load_cert_chain(os.environ["TLS_CERT_FILE"], os.environ["TLS_KEY_FILE"])
    return httpx.Client(base_url=url, timeout=HEALTH_TIMEOUT_S, verify=context)


def _etcd_healthy(endpoint: Endpoint) -> None:
    for url in _members(endpoint):
        with _etcd(url) as http:
            http.get("/health").raise_for_status()


def _etcd_works(endpoints: Endpoints) -> dict[str, Any]:
    urls = _members(endpoints["shudl_etcd"])

    def text(value: str) -> str:
        return base64.b64encode(value.encode()).decode()

    key, value = text(f"/shudl/check/{uuid.uuid4()}"), text(uuid.uuid4().hex)
    with _etcd(urls[0]) as first, _etcd(urls[-1]) as last:
        first.post("/v3/kv/put", json={"key": key, "value": value}).raise_for_status()
        found = last.post("/v3/kv/range", json={"key": key}).raise_for_status().json().get("kvs", [])
        first.post("/v3/kv/deleterange", json={"key": key}).raise_for_status()
        status = first.post("/v3/maintenance/status", json={}).raise_for_status().json()
    if [item["value"] for item in found] != [value]:
        raise ValueError(f"what {urls[0]} was given did not come back from {urls[-1]}")
    return {"version": status["version"], "members": len(urls)}


# ── PostgreSQL's cluster ─────────────────────────────────────────────────────────────────────────────────


def _cluster(endpoint: Endpoint) -> list[dict[str, Any]]:
    """What the first of Patroni's members that answers says of all."""
    failure: Exception | None = None
    for url in _members(endpoint):
        try:
            return httpx.get(f"{url}/cluster", timeout=HEALTH_TIMEOUT_S).raise_for_status().json()["members"]
        except httpx.HTTPError as error:
            failure = error
    raise failure or ValueError("no member of the cluster is known")


def _patroni_healthy(endpoint: Endpoint) -> None:
    members = _cluster(endpoint)
    if not [m for m in members if m["role"] == "leader" and m["state"] == "running"]:
        raise ValueError(f"no leader among {', '.join(m['name'] + ' ' + m['state'] for m in members) or 'no members'}")


def _patroni_works(endpoints: Endpoints) -> dict[str, Any]:
    deadline = time.monotonic() + STANDBY_S
    while True:
        members = _cluster(endpoints["shudl_patroni"])
        roles = {m["name"]: m["role"] for m in members if m["state"] in ("running", "streaming")}
        if "leader" in roles.values() and "sync_standby" in roles.values():
            return roles
        if time.monotonic() > deadline:
            raise ValueError(f"no leader with a synchronous standby after {STANDBY_S} s: {members}")
        time.sleep(1)


def haproxy_reads(endpoint: Endpoint) -> dict[str, Any]:
    """Whether HAProxy's second port leads to a standby; nothing for a PostgreSQL that is not ours."""
    import psycopg

    if endpoint.address != "{}:{}".format(*settings.address("postgres")):
        return {}
    with psycopg.connect(endpoint.conninfo, port=settings.address("postgres_read")[1]) as connection:
        (standby,) = connection.execute("SELECT pg_is_in_recovery()").fetchone()
    if not standby:
        raise ValueError("HAProxy's port for reading leads to the primary")
    return {"reads": "standby"}


# ── access ───────────────────────────────────────────────────────────────────────────────────────────────


def _keycloak_works(endpoints: Endpoints) -> dict[str, Any]:
    """The realm is as it is described. A Keycloak of somebody else's is asked for the realm alone."""
    from include.platform.realm import REALM, ensure_realm

    endpoint = endpoints["shudl_keycloak"]
    made = ensure_realm(endpoints) if endpoint.address == "{}:{}".format(*settings.address("keycloak")) else {}
    with _client(endpoint) as http:
        told = http.get(f"/realms/{REALM}/.well-known/openid-configuration", timeout=20).raise_for_status().json()
    return {"issuer": told["issuer"], **made}


def _asks_for_a_token(endpoint: Endpoint) -> None:
    """It answers, and refuses who shows no token."""
    with _client(endpoint) as http:
        answer = http.get("/api/v2/config")
    if answer.status_code != httpx.codes.UNAUTHORIZED:
        raise ValueError(f"GET /api/v2/config without a token: HTTP {answer.status_code}, not 401")


def _nessie_access_works(endpoints: Endpoints) -> dict[str, Any]:
    """It knows the realm: a token that nobody signed is refused for what it is."""
    forged = ".".join((*(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (b'{"alg":"RS256"}', b"{}")), "AAAA"))
    with _client(endpoints["shudl_nessie_access"]) as http:
        answer = http.get("/iceberg/v1/config", headers={"Authorization": f"Bearer {forged}"}, timeout=20)
    if answer.status_code != httpx.codes.UNAUTHORIZED:
        raise ValueError(f"a forged token was answered with HTTP {answer.status_code}, not 401")
    return {"refused": ["anonymous", "forged"]}


def _nessie_proxy_healthy(endpoint: Endpoint) -> None:
    """It answers, refuses who shows no token, and Nessie answers behind it."""
    _asks_for_a_token(endpoint)
    with _client(endpoint) as http:
        http.get("/iceberg/v1/config", headers=_bearer(endpoint)).raise_for_status()


def _nessie_proxy_works(endpoints: Endpoints) -> dict[str, Any]:
    """The token leads to the Iceberg catalogue and to nothing else of Nessie."""
    endpoint = endpoints["shudl_nessie_proxy"]
    with _client(endpoint, headers=_bearer(endpoint)) as http:
        namespaces = http.get(f"/iceberg/v1/{BRANCH}/namespaces", timeout=20).raise_for_status().json()["namespaces"]
        answer = http.get("/api/v2/trees")
    if answer.status_code != httpx.codes.FORBIDDEN:
        raise ValueError(f"GET /api/v2/trees: HTTP {answer.status_code}, not 403")
    return {"namespaces": len(namespaces), "refused": ["anonymous", "Nessie's own API"]}


def _bearer(endpoint: Endpoint) -> dict[str, str]:
    return {"Authorization": f"Bearer {endpoint.password}"}


# ── monitoring ───────────────────────────────────────────────────────────────────────────────────────────


def _prometheus_works(endpoints: Endpoints) -> dict[str, Any]:
    with _client(endpoints["shudl_prometheus"]) as http:
        answer = http.get("/api/v1/query", params={"query": "up"}).raise_for_status().json()
    up = {result["metric"]["job"]: result["value"][1] for result in answer["data"]["result"]}
    if not up:
        raise ValueError("Prometheus watches nothing yet")
    return {"targets": len(up), "down": sorted(job for job, value in up.items() if value != "1")}


def _alertmanager_works(endpoints: Endpoints) -> dict[str, Any]:
    name, now = f"shudl_check_{uuid.uuid4().hex[:12]}", datetime.now(UTC)
    alert = {"labels": {"alertname": name, "severity": "none"}, "endsAt": (now + timedelta(seconds=5)).isoformat()}
    with _client(endpoints["shudl_alertmanager"]) as http:
        http.post("/api/v2/alerts", json=[alert]).raise_for_status()
        deadline = time.monotonic() + 4
        while not http.get("/api/v2/alerts", params={"filter": f"alertname={name}"}).raise_for_status().json():
            if time.monotonic() > deadline:
                raise ValueError(f"alert {name} was taken, but is not listed")
            time.sleep(0.2)
    return {"alert": name}


def _loki_works(endpoints: Endpoints) -> dict[str, Any]:
    label, line = f"shudl_check_{uuid.uuid4().hex[:12]}", uuid.uuid4().hex
    with _client(endpoints["shudl_loki"]) as http:
        stream = {"stream": {"job": label}, "values": [[str(time.time_ns()), line]]}
        http.post("/loki/api/v1/push", json={"streams": [stream]}).raise_for_status()
        found = http.get("/loki/api/v1/query_range", params={"query": f'{{job="{label}"}}'}).raise_for_status().json()
    lines = [value[1] for result in found["data"]["result"] for value in result["values"]]
    if lines != [line]:
        raise ValueError(f"a line that was pushed came back as {lines}")
    return {"lines": len(lines)}


def _grafana_works(endpoints: Endpoints) -> dict[str, Any]:
    endpoint = endpoints["shudl_grafana"]
    with _client(endpoint, auth=(endpoint.login, endpoint.password)) as http:
        sources = [source["name"] for source in http.get("/api/datasources").raise_for_status().json()]
        boards = http.get("/api/search", params={"type": "dash-db"}).raise_for_status().json()
    if not sources or not boards:
        raise ValueError(f"Grafana has {len(sources)} data sources and {len(boards)} dashboards")
    return {"datasources": sources, "dashboards": len(boards)}


def _alloy_works(endpoints: Endpoints) -> dict[str, Any]:
    with _client(endpoints["shudl_alloy"]) as http:
        http.get("/-/healthy").raise_for_status()
    return {}


def _kafka_ui_works(endpoints: Endpoints) -> dict[str, Any]:
    endpoint = endpoints["shudl_kafka_ui"]
    with _client(endpoint) as http:
        if settings.signs_in:
            answer = http.get("/api/clusters")
            if answer.is_success:
                raise ValueError("Kafka UI shows clusters to who has not signed in")
            return {"anonymous": answer.status_code}
        http.post("/login", data={"username": endpoint.login, "password": endpoint.password})  # answers with a cookie
        clusters = {c["name"]: c["status"] for c in http.get("/api/clusters", timeout=20).raise_for_status().json()}
    if set(clusters.values()) != {"online"}:
        raise ValueError(f"Kafka UI sees {clusters or 'no cluster'}")
    return clusters


def _dbt_docs_works(endpoints: Endpoints) -> dict[str, Any]:
    with _client(endpoints["shudl_dbt_docs"]) as http:
        page = http.get("/index.html").raise_for_status().text
    if "model.shudl." not in page:
        raise ValueError("the page names no model of the project")
    return {"bytes": len(page)}


HEALTHY: dict[str, Callable[[Endpoint], object]] = {
    "etcd": _etcd_healthy,
    "patroni": _patroni_healthy,
    "keycloak": _answers("/realms/master/.well-known/openid-configuration"),
    "nessie-access": _asks_for_a_token,
    "nessie-proxy": _nessie_proxy_healthy,
    "prometheus": _answers("/-/ready"),
    "alertmanager": _answers("/-/ready"),
    "loki": _answers("/ready"),
    "alloy": _answers("/-/ready"),
    "grafana": _answers("/api/health"),
    "kafka-ui": _answers("/actuator/health"),
    "dbt-docs": _answers("/index.html"),
}

WORKS: dict[str, Callable[[Endpoints], dict[str, Any]]] = {
    "etcd": _etcd_works,
    "patroni": _patroni_works,
    "keycloak": _keycloak_works,
    "nessie-access": _nessie_access_works,
    "nessie-proxy": _nessie_proxy_works,
    "prometheus": _prometheus_works,
    "alertmanager": _alertmanager_works,
    "loki": _loki_works,
    "alloy": _alloy_works,
    "grafana": _grafana_works,
    "kafka-ui": _kafka_ui_works,
    "dbt-docs": _dbt_docs_works,
}
