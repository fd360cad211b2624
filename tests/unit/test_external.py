"""``SHUDL_EXTERNAL``: what follows from it in both runtimes, and what is said of one that cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from include.cdc.connector import password_reference
from include.platform.catalog import DOCKER, LOCAL, Service, externals
from include.platform.compose import external as compose_external
from include.platform.compose.model import Compose
from include.platform.endpoints import Endpoint, own_endpoints, redirected
from include.platform.external import problems
from include.platform.kafka import flink_properties
from include.platform.settings import ROOT, Settings, SettingsError, external_pairs

KAFKA = Endpoint("company_kafka", "kafka", "", 0, extra={"bootstrap.servers": "kafka.example:19092"})
COMPOSE = Compose.read(ROOT / "docker" / "compose.yaml")


def settings_with(tmp_path: Path, text: str) -> Settings:
    return Settings(home=tmp_path, port_base=30000, external=external_pairs(text))


# ── the setting ──


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kafka", r"SHUDL_EXTERNAL=kafka: kafka is not service=connection, such as kafka=company_kafka"),
        ("kafka=", "kafka= is not service=connection"),
        ("kafka=a kafka=b", "kafka has two connections; leave one"),
    ],
)
def test_what_is_no_pair_is_named(text: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        external_pairs(text)


@pytest.mark.parametrize(
    ("text", "services", "told"),
    [
        ("kafak=a", LOCAL, r"kafak: no such service; the services are postgres, s3, kafka, "),
        ("haproxy=a", LOCAL, "haproxy: no such service"),
        ("etcd=a", DOCKER, "etcd is a part of haproxy; give haproxy a connection"),
        ("flink-jobmanager=a flink-taskmanager=b", DOCKER, "flink-jobmanager and flink-taskmanager are reached through one"),
    ],
)
def test_what_cannot_be_external_is_named(text: str, services: tuple[Service, ...], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        externals(external_pairs(text), services)


def test_what_shares_a_connection_and_what_is_a_part_goes_along() -> None:
    found = externals(external_pairs("haproxy=pg, spark-master=sp kafka=k"), DOCKER)
    assert found == {"etcd": "", "patroni": "", "haproxy": "pg", "kafka": "k", "spark-master": "sp", "spark-worker": "sp"}


@pytest.mark.parametrize("runtime", ["local", "docker"])
def test_the_catalogue_of_a_process(runtime: str) -> None:
    """What is external is in the catalogue, needs nothing to start, and is not ours."""
    script = (
        "from include.platform.catalog import BY_NAME, EXTERNAL, OWN, SERVICES\n"
        "from include.platform.supervisor import render_config\n"
        "assert EXTERNAL == {'nessie': 'n', 'kafka': 'k'}\n"
        "assert {s.name for s in SERVICES} - {s.name for s in OWN} == {'nessie', 'kafka'}\n"
        "assert not BY_NAME['nessie'].needs and 'kafka' in BY_NAME['connect'].needs"
    )
    env = {**os.environ, "SHUDL_EXTERNAL": "nessie=n kafka=k", "SHUDL_RUNTIME": runtime}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# ── connections ──


def test_the_connection_that_stands_for_it(tmp_path: Path) -> None:
    assert redirected(settings_with(tmp_path, "kafka=company trino=t")) == {"shudl_kafka": "company", "shudl_trino": "t"}
    assert redirected(settings_with(tmp_path, "")) == {}


def wrong(tmp_path: Path, text: str, connection: Endpoint | None, **environment: str) -> list[str]:
    """What is said when the connection of the one external service is ``connection``, or missing."""
    s = settings_with(tmp_path, text)
    endpoints = own_endpoints(s)
    (instead,) = redirected(s)
    if connection:
        endpoints[instead] = connection
    else:
        del endpoints[instead]
    return problems(endpoints, s, environment)


@pytest.mark.parametrize(
    ("text", "connection", "environment", "told"),
    [
        ("kafka=company_kafka", None, {}, "kafka is external: "),
        ("kafka=company_kafka", replace(KAFKA, extra={}), {}, "must be of type kafka, with"),
        ("kafka=company_kafka", KAFKA, {}, "says kafka.example:19092, and KAFKA_BOOTSTRAP says nothing"),
        ("kafka=company_kafka", KAFKA, {"KAFKA_BOOTSTRAP": "other:1"}, "KAFKA_BOOTSTRAP says other:1"),
        ("trino=t", Endpoint("t", "trino", "", 8080), {}, "connection t must have a host and a port"),
        ("trino=t", Endpoint("t", "trino", "h", 1), {"KAFKA_BOOTSTRAP": "other:1"}, "but kafka is not in SHUDL_EXTERNAL"),
        ("postgres=p", Endpoint("p", "http", "h", 1), {}, "connection p is of type http; it must be postgres"),
        ("flink-jobmanager=f", Endpoint("f", "http", "h", 1), {}, "must say in its extra where checkpoints are"),
        ("connect=c", Endpoint("c", "http", "h", 1), {}, "how that Kafka Connect finds sources' passwords"),
        ("nessie=n", Endpoint("n", "http", "h", 1), {}, "set LAKE_CATALOG_URI=http://h:1/iceberg/ in the environment"),
    ],
)
def test_what_is_wrong_with_a_connection_or_a_setting(
    tmp_path: Path, text: str, connection: Endpoint | None, environment: dict[str, str], told: str
) -> None:
    assert told in "\n".join(wrong(tmp_path, text, connection, **environment))


def test_nothing_is_wrong_where_they_agree(tmp_path: Path) -> None:
    assert wrong(tmp_path, "kafka=company_kafka", KAFKA, KAFKA_BOOTSTRAP="kafka.example:19092") == []
    s3 = Endpoint("s", "generic", "s3.example", 443, extra={"scheme": "https"})
    assert wrong(tmp_path, "s3=s", s3, LAKE_S3_ENDPOINT="https://s3.example:443") == []
    assert wrong(tmp_path, "trino=t", Endpoint("t", "trino", "h", 1)) == []


def test_flink_signs_in_as_the_connection_says() -> None:
    extra = {"bootstrap.servers": "a:1", "security.protocol": "SASL_SSL", "sasl.mechanisms": "PLAIN", "sasl.password": "p"}
    assert flink_properties(replace(KAFKA, extra=extra)) == {
        "properties.bootstrap.servers": "a:1",
        "properties.security.protocol": "SASL_SSL",
        "properties.sasl.mechanism": "PLAIN",
    }


def test_an_external_connect_finds_passwords_in_its_own_way() -> None:
    there = Endpoint("c", "http", "h", 1, extra={"password_reference": "${secrets:ns/{source}:password}"})
    assert password_reference("shop", there) == "${secrets:ns/shop:password}"
    assert password_reference("shop", replace(there, extra={"secrets_dir": "/s"})) == "${dir:/s:shop}"


# ── containers ──


def test_compose_starts_nothing_for_it_and_lets_its_clients_out() -> None:
    text = compose_external.render(COMPOSE, "kafka=k")
    assert text.startswith("# SHUDL_EXTERNAL=kafka=k\n")
    over = yaml.safe_load(text)["services"]
    assert {name for name, service in over.items() if service == {"scale": 0}} == {"kafka", "kafka2", "kafka3", "kafka-access"}
    out = {name for name, service in over.items() if service == {"networks": ["sources"]}}
    assert {"flink-taskmanager", "flink-sql-gateway"} <= out and len(over) == len(out) + 4


def test_compose_starts_no_part_of_it() -> None:
    over = yaml.safe_load(compose_external.render(COMPOSE, "haproxy=p"))["services"]
    assert set(over) == {"haproxy", "fencer", *(part for svc in DOCKER if svc.part_of == "haproxy" for part in svc.containers)}
    assert yaml.safe_load(compose_external.render(COMPOSE, "trino=t"))["services"] == {
        name: {"scale": 0} for name in ("trino", "trino-worker1", "trino-worker2")
    }


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"SHUDL_EXTERNAL": "kafak=a"}, "kafak: no such service"),
        ({"SHUDL_EXTERNAL": "kafka=a"}, "kafka is external, and KAFKA_BOOTSTRAP= does not say where it is"),
        ({"KAFKA_BOOTSTRAP": "other:1"}, "KAFKA_BOOTSTRAP=other:1, but kafka is not in SHUDL_EXTERNAL"),
        ({"SHUDL_EXTERNAL": "trino=a", "COMPOSE_PROFILES": "access"}, "our Nessie lets in no engine that is elsewhere"),
    ],
)
def test_the_check_before_a_start_holds_settings_together(settings: dict[str, str], told: str) -> None:
    defaults = {"SHUDL_EXTERNAL": "", "KAFKA_BOOTSTRAP": ""}
    (problem,) = compose_external.problems({**defaults, **settings}, defaults)
    assert told in str(problem) and "→" in str(problem)
    assert compose_external.problems({**defaults, "SHUDL_EXTERNAL": "kafka=a", "KAFKA_BOOTSTRAP": "other:1"}, defaults) == []


@pytest.mark.parametrize(
    "settings", [{"SHUDL_EXTERNAL": "trino=a", "COMPOSE_PROFILES": "docs,engines"}, {"SHUDL_EXTERNAL": "trino=a nessie=b"}]
)
def test_a_trino_elsewhere_has_a_way_to_the_catalogue(settings: dict[str, str]) -> None:
    assert compose_external.problems(settings, {}) == []
