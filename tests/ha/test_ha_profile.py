"""The profile ``ha``, by what its services are told: one switch, and everything that depends on it follows."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.platform.catalog import SEVERAL, control_plane, docker_services
from include.platform.compose import preflight
from include.platform.compose.facts import Facts
from include.platform.compose.model import Compose
from include.platform.endpoints import local_endpoints
from include.platform.settings import ROOT, Settings

COMPOSE = Compose.read(ROOT / "docker" / "compose.yaml")
SERVICES = ROOT / "docker" / "services"


def parts(services: tuple[Any, ...]) -> set[str]:
    return {part for svc in services for part in svc.containers or (svc.name,)}


def resolved(value: object, profiles: str) -> str:
    """``value`` as Compose gives it with these profiles and no other setting."""
    text = str(value).replace("${COMPOSE_PROFILES:-}", profiles)
    return re.sub(r"\$\{\w+(?::-([^}]*))?\}", lambda found: found[1] or "", text)


def entrypoint(
    container: str, folder: Path, profiles: str, without: tuple[str, ...] = (), timeout_s: float = 60, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a container's entrypoint in ``folder`` with what Compose tells it, less ``without`` and with ``more``.

    What it starts does nothing.
    """
    service = COMPOSE.services[container]
    command = service.get("entrypoint", ["", "", "", f"/{service['image'].split('/')[1].split(':')[0]}/entrypoint.sh"])[-1]
    script = SERVICES / Path(command).parent.name / "entrypoint.sh"
    run, bin_ = folder / "run", folder / "bin"
    for made in (run, bin_, folder / "data"):
        made.mkdir(exist_ok=True)
    for program in ("haproxy", "java"):
        (bin_ / program).write_text("#!/bin/sh\n")
        (bin_ / program).chmod(0o755)
    env = {name: resolved(value, profiles) for name, value in service["environment"].items()}
    for name, value in env.items():
        if value.startswith("/run/secrets/"):
            (folder / Path(value).name).write_text("pass-word")
            env[name] = str(folder / Path(value).name)
    homes = {f"{name}_HOME": str(folder) for name in ("JAVA", "TRINO", "FLINK", "SPARK")} | {"KAFKA_LIBS": str(folder)}
    homes |= {"CONNECT_PLUGINS": str(folder), "CONNECT_SECRETS_DIR": str(folder / "secrets")}
    data = {f"{name}_DATA_DIR": str(folder / "data") for name in ("KAFKA", "TRINO", "FLINK")}
    env |= homes | data | {"RUN_DIR": str(run), "PATH": f"{bin_}:{os.environ['PATH']}"}
    env = {name: value for name, value in env.items() if name not in without} | more
    said = folder / "said"
    with said.open("w") as file:
        started = subprocess.Popen(["bash", str(script)], env=env, stdout=file, stderr=file, start_new_session=True)
        try:
            code = started.wait(timeout_s)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)  # with what it left in the background
    return subprocess.CompletedProcess(str(script), code, said.read_text(), said.read_text())


def properties(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


# ── what runs ──


def test_the_profile_has_what_the_catalogue_says_and_nothing_else_has_it() -> None:
    more = parts(docker_services(ha=True)) - parts(docker_services(ha=False))
    more |= parts(control_plane(docker=True, ha=True)) - parts(control_plane(docker=True, ha=False))
    assert more == {name for name, service in COMPOSE.services.items() if "ha" in service.get("profiles", ())}
    assert all(COMPOSE.services[name]["profiles"] == ["ha"] for name in more), "full does not turn one into several"
    assert {len(containers) for name, containers in SEVERAL.items() if name not in ("kafka", "trino")} == {2}
    assert len(SEVERAL["kafka"]) == 3 and len(SEVERAL["trino"]) == 3, "three brokers; a coordinator and two workers"


def test_what_is_set_up_otherwise_is_told_the_profiles() -> None:
    told = {name for name, service in COMPOSE.services.items() if "SHUDL_PROFILES" in (service.get("environment") or {})}
    reading = {path.parent.name for path in SERVICES.glob("*/entrypoint.sh") if re.search(r"\bprofile ha\b", path.read_text())}
    for name, service in COMPOSE.services.items():
        script = Path((service.get("entrypoint") or [f"/{service['image'].split('/')[-1].split(':')[0]}/x"])[-1]).parent.name
        assert (name in told) >= (script in reading), f"{name} is not told which profiles run"


def test_what_the_profile_has_alike_is_held_alike() -> None:
    """A second one is as the first, but for its name, certificate, volume and what is published."""
    own = {"hostname", "profiles", "environment", "secrets", "volumes", "ports", "networks", "depends_on"}
    pairs = [(containers[0], other) for containers in SEVERAL.values() for other in containers[1:]]
    for first, second in pairs:
        a, b = COMPOSE.services[first], COMPOSE.services[second]
        assert {k: v for k, v in a.items() if k not in own} == {k: v for k, v in b.items() if k not in own}, second
        assert set(b["networks"]) <= set(a["networks"]) and "ports" not in b
        names = {key for key, value in b["environment"].items() if a["environment"].get(key) != value}
        assert all(b["environment"][key] == second for key in names), f"{second}: {names}"


def test_full_is_without_it_and_its_memory_is_stated() -> None:
    assert "ha" in COMPOSE.apart and COMPOSE.memory_gb({"ha"}) > COMPOSE.memory_gb(set())
    assert COMPOSE.memory_gb({"full", "ha"}) > COMPOSE.memory_gb({"full"})
    assert COMPOSE.memory_gb({"ha"}) < 24


def test_clients_are_told_all_brokers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Settings, "secret", lambda self, name: name)
    alone = Settings(home=tmp_path, port_base=0, runtime="docker")
    several = Settings(home=tmp_path, port_base=0, runtime="docker", profiles=frozenset({"access", "ha"}))
    assert local_endpoints(alone)["shudl_kafka"].extra["bootstrap.servers"] == "kafka:9092"
    assert local_endpoints(several)["shudl_kafka"].extra["bootstrap.servers"] == "kafka:9092,kafka2:9092,kafka3:9092"
    assert not Settings(home=tmp_path, port_base=0, profiles=frozenset({"ha"})).ha, "the local platform has one of each"


def test_leaving_the_profile_is_told_before_kafka_stands_still(tmp_path: Path) -> None:
    with_quorum, without = Facts(["volume\tshudl_kafka", "volume\tshudl_kafka2"]), Facts(["volume\tshudl_kafka"])
    (problem,) = preflight.kafka_quorum(COMPOSE, with_quorum, {"COMPOSE_PROFILES": "access"})
    assert "add ha to COMPOSE_PROFILES" in str(problem)
    assert preflight.kafka_quorum(COMPOSE, with_quorum, {"COMPOSE_PROFILES": "access,ha"}) == []
    assert preflight.kafka_quorum(COMPOSE, without, {}) == []


# ── how they are set up ──


@pytest.mark.parametrize(
    ("profiles", "container", "node", "quorum", "replication", "isr", "bind"),
    [
        ("access", "kafka", "1", "127.0.0.1:9093", "1", "1", "127.0.0.1"),
        ("ha", "kafka", "1", "kafka:9093,kafka2:9093,kafka3:9093", "3", "2", "0.0.0.0"),
        ("access,ha", "kafka3", "3", "kafka:9093,kafka2:9093,kafka3:9093", "3", "2", "0.0.0.0"),
    ],
)
def test_kafka(
    profiles: str, container: str, node: str, quorum: str, replication: str, isr: str, bind: str, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "meta.properties").write_text("cluster.id=x\n")
    entrypoint(container, tmp_path, profiles)
    made = properties(tmp_path / "run" / "server.properties")
    assert (made["node.id"], made["controller.quorum.bootstrap.servers"]) == (node, quorum)
    assert "controller.quorum.voters" not in made
    assert {value for name, value in made.items() if name.endswith("replication.factor")} == {replication}
    assert {value for name, value in made.items() if name.endswith(("min.isr", "min.insync.replicas"))} == {isr}
    assert f"CONTROLLER://{bind}:9093" in made["listeners"], "a single one's controller is reached from its container alone"


def test_a_second_broker_does_not_run_without_the_profile(tmp_path: Path) -> None:
    done = entrypoint("kafka2", tmp_path, "")
    assert done.returncode == 64 and "KAFKA_HOST=kafka2 is not one of the brokers that run: kafka" in done.stderr


def replicas(described: str, brokers: int = 3) -> dict[str, Any]:
    text = (SERVICES / "kafka" / "entrypoint.sh").read_text()
    begin = text.index("\nreplicas() {")
    function = text[begin : text.index("\n}\n", begin) + 2]
    done = subprocess.run(
        ["bash", "-c", f"{function}\nreplicas {brokers}"], input=described, capture_output=True, text=True, timeout=20
    )
    assert not done.returncode, done.stderr
    return yaml.safe_load(done.stdout)


def test_topics_get_the_replicas_that_they_lack() -> None:
    """What has enough is left alone; the present leader stays the first."""
    described = (
        "Topic: flights\tTopicId: a\tPartitionCount: 2\tReplicationFactor: 1\tConfigs: min.insync.replicas=1\n"
        "\tTopic: flights\tPartition: 0\tLeader: 1\tReplicas: 1\tIsr: 1\tElr: \tLastKnownElr: \n"
        "\tTopic: flights\tPartition: 1\tLeader: 2\tReplicas: 2\tIsr: 2\tElr: \tLastKnownElr: \n"
        "Topic: __consumer_offsets\tTopicId: b\tPartitionCount: 1\tReplicationFactor: 3\tConfigs: \n"
        "\tTopic: __consumer_offsets\tPartition: 0\tLeader: 2\tReplicas: 2,3,1\tIsr: 2,3,1\tElr: \tLastKnownElr: \n"
    )
    assert replicas(described)["partitions"] == [
        {"topic": "flights", "partition": 0, "replicas": [1, 2, 3]},
        {"topic": "flights", "partition": 1, "replicas": [2, 1, 3]},
    ]
    assert replicas("") == {"version": 1, "partitions": []}


@pytest.mark.parametrize(("profiles", "brokers"), [("", "kafka:9092"), ("ha", "kafka:9092,kafka2:9092,kafka3:9092")])
def test_connect(profiles: str, brokers: str, tmp_path: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):  # it waits for Kafka
        entrypoint("connect", tmp_path, profiles, without=("TLS_CERT_FILE", "TLS_KEY_FILE"), timeout_s=3)
    made = properties(tmp_path / "run" / "connect.properties")
    assert made["bootstrap.servers"] == brokers
    assert {v for k, v in made.items() if k.endswith("storage.replication.factor")} == {"-1"}, "as many as the broker says"


@pytest.mark.parametrize(
    ("profiles", "container", "role"),
    [
        ("monitoring", "trino", {"coordinator": "true", "node-scheduler.include-coordinator": "true"}),
        ("ha", "trino", {"coordinator": "true", "node-scheduler.include-coordinator": "false", "retry-policy": "QUERY"}),
        ("ha", "trino-worker2", {"coordinator": "false"}),
    ],
)
def test_trino(profiles: str, container: str, role: dict[str, str], tmp_path: Path) -> None:
    entrypoint(container, tmp_path, profiles)
    made = properties(tmp_path / "run" / "etc" / "config.properties")
    keys = ("coordinator", "node-scheduler.include-coordinator", "retry-policy")
    assert {key: made[key] for key in keys if key in made} == role
    assert made["discovery.uri"] == "https://trino:8080" and made["node.internal-address"] == container
    assert made["internal-communication.https.required"] == "true" and "internal-communication.shared-secret" in made
    assert ("http-server.authentication.type" in made) == (container == "trino"), "people sign in at the coordinator"


@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_trino_that_is_elsewhere_shows_its_token(elsewhere: bool, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("to-ken")
    done = entrypoint("trino", tmp_path, "", **({"LAKE_CATALOG_TOKEN_FILE": str(token)} if elsewhere else {}))
    assert not done.returncode, done.stderr
    shown = {"security": "OAUTH2", "oauth2.token": "${ENV:LAKE_CATALOG_TOKEN}", "oauth2.token-refresh-enabled": "false"}
    expected = shown if elsewhere else dict.fromkeys(shown)
    for catalog in ("lake", "published"):
        made = properties(tmp_path / "run" / "etc" / "catalog" / f"{catalog}.properties")
        assert {name: made.get(f"iceberg.rest-catalog.{name}") for name in shown} == expected


@pytest.mark.parametrize(("profiles", "servers"), [("", 1), ("ha", 2)])
def test_the_way_to_airflow(profiles: str, servers: int, tmp_path: Path) -> None:
    done = entrypoint("airflow-proxy", tmp_path, profiles)
    assert not done.returncode, done.stderr
    made = (tmp_path / "run" / "haproxy.cfg").read_text()
    assert len(re.findall(r"^    server airflow-api-server", made, re.M)) == servers
    assert "verify required" in made and "ssl crt" in made
