"""docker/compose.yaml, held to the catalogue, to the settings that are documented, and to what every service must have."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from include.platform.catalog import control_plane, docker_services
from include.platform.settings import DOCKER_ADDRESSES, DOCKER_TLS, PORT_OFFSETS, ROOT

FILE = ROOT / "docker" / "compose.yaml"
TEXT = FILE.read_text()
PAGES: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "compose.pages.yaml").read_text())["services"]
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
OFFICIAL = {"clickhouse", "grafana", "loki", "alloy", "kafka-ui"}
OWN_USERS = {"loki": "10001:10001", "alloy": "0:0"}
"""Loki's image owns its folder; Alloy reads Docker's log files, which are root's, and has no capability."""
ONCE = {"cli", "kafka-access", "keycloak-realm"}
DOCKER, CONTROL_PLANE = docker_services(ha=True), control_plane(docker=True, ha=True)
CONTAINERS = {part for svc in DOCKER for part in (svc.containers or (svc.name,))}
each_service = pytest.mark.parametrize("name", SERVICES)


def resolved(value: object) -> str:
    """``value`` with the defaults of its variables."""
    return VARIABLE.sub(lambda found: found[2] or "", str(value))


def documented() -> dict[str, str]:
    """The settings of docker/.env.example and their values."""
    lines = (ROOT / "docker" / ".env.example").read_text().splitlines()
    found = (re.fullmatch(r"#?(\w+)=(.*)", line) for line in lines)
    return {match[1]: match[2] for match in found if match}


def test_it_runs_what_the_catalogue_names() -> None:
    control = {part for svc in CONTROL_PLANE for part in (svc.containers or (svc.name,))} | {"docker-filter", "fencer"}
    assert set(SERVICES) == CONTAINERS | control | ONCE
    assert COMPOSE["name"] == "shudl"


def test_the_filter_lets_through_the_catalogues_containers_alone() -> None:
    allowed = resolved(SERVICES["docker-filter"]["environment"]["FILTER_CONTAINERS"]).split()
    assert sorted(allowed) == sorted(f"shudl-{name}-1" for name in CONTAINERS)


@pytest.mark.parametrize("port", DOCKER_ADDRESSES)
def test_ports_are_those_of_the_catalogue(port: str) -> None:
    """A service's own variables name the port that others are told, and its TLS."""
    container, number = DOCKER_ADDRESSES[port]
    service = SERVICES[container]
    mine = {resolved(value) for key, value in service.get("environment", {}).items() if key.endswith("PORT")}
    here = ROOT / "docker" / "services" / container.rstrip("0123456789")
    rendered = (
        "".join(path.read_text() for path in here.rglob("*") if path.is_file() and path.suffix != ".pyc") if here.exists() else ""
    )
    assert str(number) in mine or re.search(rf"\b{number}\b", rendered + str(service)), f"{container} does not listen on {number}"
    tls = any(isinstance(s, dict) and s.get("target") == "tls.crt" for s in service.get("secrets", []))
    assert tls or port not in DOCKER_TLS, f"{container} has no certificate"


def test_ports_of_both_runtimes_have_the_same_names() -> None:
    used = {svc.port for svc in DOCKER} | {svc.port for svc in CONTROL_PLANE if svc.port}
    own_to_local = {"flink_taskmanager_rpc", "spark_worker"}
    assert used - own_to_local <= set(DOCKER_ADDRESSES)
    assert {"postgres", "s3", "kafka", "trino", "airflow"} <= set(PORT_OFFSETS) & set(DOCKER_ADDRESSES)


@each_service
def test_every_service_is_held_down(name: str) -> None:
    service = SERVICES[name]
    assert service["user"] == OWN_USERS.get(name, "1000:1000")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"] > 0 and service["mem_limit"]
    assert service["logging"]["options"]["max-size"] and service["logging"]["options"]["max-file"]
    assert not service.get("privileged") and "network_mode" not in service and "pid" not in service
    assert service["restart"] == ("no" if name in ONCE else "unless-stopped")


@each_service
def test_only_the_filter_and_the_log_reader_see_docker(name: str) -> None:
    sources = [str(volume).split(":")[0] for volume in SERVICES[name].get("volumes", [])]
    assert any("docker.sock" in source or "DOCKER_SOCKET" in source for source in sources) == (name == "docker-filter")
    assert any(source.startswith(("/var/lib/docker", "${DOCKER_CONTAINERS")) for source in sources) == (name == "alloy")


@each_service
def test_published_ports_are_bound_to_one_setting(name: str) -> None:
    service = SERVICES[name]
    for port in service.get("ports", []):
        assert re.fullmatch(r"\$\{SHUDL_BIND:-127\.0\.0\.1\}:\$\{\w+_PUBLISHED_PORT:-\d+\}:\d+", port), port
    assert ("edge" in service["networks"]) == bool(service.get("ports")), "edge is for what is published, and nothing else"


def test_what_asks_for_no_password_is_published_on_demand_and_never_further() -> None:
    assert set(PAGES) == {"haproxy", "registry", "flink-jobmanager", "spark-master", "dbt-docs", "prometheus", "alertmanager"}
    for name, page in PAGES.items():
        (port,) = page["ports"]
        assert re.fullmatch(r"127\.0\.0\.1:\$\{\w+_PUBLISHED_PORT:-\d+\}:\d+", port), port
        assert name == "haproxy" or (page["networks"] == ["edge"] and not SERVICES[name].get("ports"))


def test_no_published_port_is_given_twice() -> None:
    services = (*SERVICES.values(), *PAGES.values())
    ports = [resolved(port).rsplit(":", 1)[0] for service in services for port in service.get("ports", [])]
    assert sorted(ports) == sorted(set(ports))


def test_networks_are_closed_but_for_the_edge() -> None:
    assert set(COMPOSE["networks"]) == {"management", "control", "data", "storage", "edge", "sources"}
    assert all(network.get("internal") for name, network in COMPOSE["networks"].items() if name not in ("edge", "sources"))
    reading = {name for name, service in SERVICES.items() if "sources" in service["networks"]}
    running_tasks = {"airflow-scheduler", "airflow-scheduler2", "airflow-worker1", "airflow-worker2", "airflow-triggerer", "cli"}
    assert reading == {"connect", *running_tasks}, "who reads databases that are elsewhere"
    used = {network for service in SERVICES.values() for network in service["networks"]}
    assert used == set(COMPOSE["networks"])
    assert {name for name, service in SERVICES.items() if "control" in service["networks"]} == {
        "etcd1", "etcd2", "etcd3", "patroni1", "patroni2", "fencer",
    }  # fmt: skip
    assert SERVICES["docker-filter"]["networks"] == ["management"]


@each_service
def test_secrets_come_as_files(name: str) -> None:
    """What is called a password, key or secret is the name of a file among the service's secrets."""
    service = SERVICES[name]
    mounted = {f"/run/secrets/{s if isinstance(s, str) else s['target']}" for s in service.get("secrets", [])}
    for key, value in (service.get("environment") or {}).items():
        if str(value).startswith("/run/secrets/"):
            assert value in mounted, f"{name}: {key}={value} is not among its secrets"
        elif re.search(r"(PASSWORD|SECRET|TOKEN|FERNET|KEY)(_FILE)?$", key):
            pytest.fail(f"{name}: {key} is not a file")
    assert "sslmode=verify-full" in str(service.get("environment", "")) or "jdbc:" not in str(service.get("environment", ""))


def test_every_secret_is_used_and_every_used_one_is_there() -> None:
    listed = set(COMPOSE["secrets"])
    used = {s if isinstance(s, str) else s["source"] for service in SERVICES.values() for s in service.get("secrets", [])}
    assert used == listed
    for name, secret in COMPOSE["secrets"].items():
        folder = "certificates" if re.search(r"\.(crt|key|p12)$", name) else "secrets"
        file = {"ca.crt": "trust.crt", "authority.crt": "ca.crt"}.get(name, name)
        assert secret == {"file": f"./{folder}/{file}"}


def test_who_lets_clients_in_by_certificates_trusts_our_authority_alone() -> None:
    """Elsewhere ``ca.crt`` is what clients trust: external services' authorities, too."""
    own = {"source": "authority.crt", "target": "ca.crt"}
    assert {name for name, service in SERVICES.items() if own in service.get("secrets", [])} == {
        "etcd1", "etcd2", "etcd3", "patroni1", "patroni2",
    }  # fmt: skip


@each_service
def test_every_image_is_ours_or_pinned(name: str) -> None:
    image = SERVICES[name]["image"]
    if ours := re.fullmatch(r"shudl/([a-z-]+):\$\{VERSION:-([\d.]+)\}", image):
        assert (ROOT / "docker" / "services" / ours[1] / "Dockerfile").exists(), image
        assert ours[2] == (ROOT / "docker" / "VERSION").read_text().strip()
    else:
        assert name in OFFICIAL and re.search(r":v?\d+\.\d+", resolved(image)), image


@each_service
def test_every_service_says_whether_it_is_healthy(name: str) -> None:
    service = SERVICES[name]
    if name in ONCE:
        assert service["healthcheck"] == {"disable": True}
        return
    check = service.get("healthcheck")
    if not check:
        image = re.match(r"shudl/([a-z-]+)", service["image"])
        assert image, f"{name} has no health check"
        text = (ROOT / "docker" / "services" / image[1] / "Dockerfile").read_text()
        assert re.search(r"^HEALTHCHECK ", text, re.M), f"image {image[1]} has no HEALTHCHECK"
    for condition in (service.get("depends_on") or {}).values():
        assert condition["condition"] in ("service_healthy", "service_completed_successfully")


def test_it_starts_in_the_catalogues_order() -> None:
    """What the bootstrap starts first, Compose starts first too."""

    def waits_for(name: str) -> set[str]:
        direct = set(SERVICES[name].get("depends_on") or {})
        return direct.union(*(waits_for(other) for other in direct)) if direct else set()

    for svc in DOCKER:
        for part in svc.containers or (svc.name,):
            for needed in svc.needs:
                other = next(s for s in DOCKER if s.name == needed)
                assert set(other.containers or (needed,)) <= waits_for(part), f"{part} does not wait for {needed}"


def test_every_setting_is_documented() -> None:
    in_file = dict(VARIABLE.findall(TEXT + str(PAGES)))
    in_file.pop("COMPOSE_PROJECT_NAME")  # Compose's own
    told = documented()
    assert set(in_file) <= set(told), f"docker/.env.example lacks {sorted(set(in_file) - set(told))}"
    found_out = {"VERSION", "DOCKER_SOCKET", "DOCKER_GID"}  # by docker/platform.sh, when they are empty
    wrong = {n: (default, told[n]) for n, default in in_file.items() if told[n] != default and n not in found_out}
    assert not wrong, f"other values than compose.yaml's defaults: {wrong}"
    for value in told.values():
        assert not re.search(r"(?i)password|secret", value)


def test_bad_defaults_stand_nowhere() -> None:
    """No image, port list or template of ours carries a password."""
    for path in (ROOT / "docker").rglob("*"):
        if path.is_file() and path.suffix in (
            ".template",
            ".yaml",
            ".yml",
            ".sh",
            ".hcl",
            ".example",
            ".cfg",
            ".xml",
            ".properties",
        ):
            if {"secrets", "certificates"} & set(path.relative_to(ROOT / "docker").parts):
                continue
            for line in path.read_text().splitlines():
                found = re.search(r"(?i)\b(?:password|passwd)\s*[:=]\s*[\"']?([A-Za-z0-9]{3,})[\"']?\s*$", line)
                assert not found or found[1] == "none", f"{path}: {line}"
