"""The flights demo on the Compose platform: every service checked, every row proved, nothing in the clear."""

from __future__ import annotations

import json
import re
import socket
import ssl
import urllib.error
import urllib.request
from datetime import UTC, datetime

import pytest

from include.platform.catalog import DOCKER
from include.platform.settings import DOCKER_ADDRESSES, DOCKER_TLS, ROOT
from tests.compose_platform import Compose

CA = ROOT / "docker" / "certificates" / "ca.crt"
NOT_HTTPS = ("etcd", "patroni", "connect", "flink_gateway", "grafana", "nessie", "valkey")
HTTPS = sorted(set(DOCKER_TLS) - set(NOT_HTTPS))
"""What is published of that which speaks HTTPS."""


def published(compose: Compose, port: str) -> int:
    """The port of this machine that leads to what is called ``port`` in the settings."""
    container, number = DOCKER_ADDRESSES[port]
    return int(next(p["published"] for p in compose.services[container]["ports"] if p["target"] == number))


def test_the_demo_ends_with_every_row_the_same(compose: Compose) -> None:
    assert "0 rows unresolved" in compose.demo_said, compose.demo_said[-3000:]
    assert "on time %" in compose.demo_said


def test_every_container_is_healthy(compose: Compose) -> None:
    states = {
        name: one["State"].get("Health", {}).get("Status", one["State"]["Status"]) for name, one in compose.containers().items()
    }
    assert {states.pop(name, "exited") for name in ("kafka-access", "keycloak-realm")} <= {"exited", "created"}
    assert set(states.values()) == {"healthy"}, states


def test_status_names_every_service(compose: Compose) -> None:
    told = json.loads(compose.cli("status", "--json"))
    states = {service["name"]: service["state"] for service in told["services"]}
    left_out = {name for name, state in states.items() if state == "left out"}
    assert {svc.name for svc in DOCKER} <= set(states)
    assert left_out == {"kafka-ui", "loki", "alloy", "grafana"}
    assert {state for name, state in states.items() if name not in left_out} == {"healthy"}, states


@pytest.mark.parametrize("engine", ["trino", "clickhouse", "postgres"])
def test_each_engine_reads_the_same_flights(compose: Compose, engine: str) -> None:
    table = {"trino": "cdc_flights.flights", "clickhouse": "lake.`cdc_flights.flights`", "postgres": "flights"}[engine]
    told = compose.cli("sql", engine, f"SELECT count(*) FROM {table} WHERE month < 12")
    assert "308641" in told.replace(",", ""), told


def test_no_secret_is_in_what_docker_shows(compose: Compose) -> None:
    """Neither in settings nor in logs nor in process lists."""
    secrets = {name: value for name, value in compose.secrets().items() if name != "s3_access_key"}
    shown = {f"inspect {name}": json.dumps(one) for name, one in compose.containers().items()}
    for name, one in compose.containers().items():
        shown[f"logs {name}"] = compose.run("docker", "logs", one["Id"]).stdout
        if one["State"]["Running"]:
            shown[f"top {name}"] = compose.run("docker", "top", one["Id"], "-eo", "pid,args").stdout
    found = [f"{secret} in {where}" for where, text in shown.items() for secret, value in secrets.items() if value in text]
    assert not found


@pytest.mark.parametrize("port", HTTPS)
def test_https_only(compose: Compose, port: str) -> None:
    """With the platform's authority a client gets an answer; with the system's it does not; plain HTTP is no use."""
    address = f"localhost:{published(compose, port)}"
    trusting = ssl.create_default_context(cafile=CA)
    try:
        urllib.request.urlopen(f"https://{address}/", timeout=20, context=trusting)
    except urllib.error.HTTPError:
        pass  # an answer, too
    with pytest.raises((urllib.error.URLError, ssl.SSLError)) as refused:
        urllib.request.urlopen(f"https://{address}/", timeout=20, context=ssl.create_default_context())
    assert "CERTIFICATE_VERIFY_FAILED" in str(refused.value)
    with socket.create_connection(("localhost", published(compose, port)), timeout=20) as plain:
        plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = plain.recv(4096)
    assert not re.match(rb"HTTP/1\.\d (200|204|401|403|404)", answer), answer


def test_postgres_takes_no_client_without_tls(compose: Compose) -> None:
    import psycopg

    where = {"host": "localhost", "user": "flights", "dbname": "flights", "password": compose.secrets()["postgres_flights"]}
    port = published(compose, "postgres")
    with psycopg.connect(**where, port=port, sslmode="verify-full", sslrootcert=str(CA)) as connection:
        assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
    with psycopg.connect(
        **where, port=published(compose, "postgres_read"), sslmode="verify-full", sslrootcert=str(CA)
    ) as standby:
        assert standby.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
    with pytest.raises(psycopg.OperationalError, match="no encryption"):
        psycopg.connect(**where, port=port, sslmode="disable")


def test_trino_wants_a_password(compose: Compose) -> None:
    request = urllib.request.Request(
        f"https://localhost:{published(compose, 'trino')}/v1/statement", b"SELECT 1", {"X-Trino-User": "shudl"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=20, context=ssl.create_default_context(cafile=CA))
    assert refused.value.code == 401


def test_prometheus_knows_what_is_asked_of_it(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.docker.test_monitoring import test_expressions_name_metrics_that_exist

    test_expressions_name_metrics_that_exist(f"http://localhost:{published(compose, 'prometheus')}")


def test_bootstrap_starts_what_is_held_down(compose: Compose) -> None:
    """Docker does not restart what somebody killed; Airflow does, through the filter. The proof is at zero afterwards."""
    for name in ("kafka", "connect", "trino"):
        compose.compose("kill", name)
    compose.cli("run", "platform_bootstrap", timeout_s=600)
    compose.cli("run", "cdc_flights", timeout_s=300)
    before = datetime.now(UTC).isoformat()
    compose.cli("run", "prove_flights", timeout_s=600)
    told = json.loads(compose.cli("status", "--json"))
    (flights,) = told["pipelines"]
    assert flights["proof"]["written_at"] > before and flights["proof"]["unresolved"] == 0
    assert {s["state"] for s in told["services"]} <= {"healthy", "left out"}, told
