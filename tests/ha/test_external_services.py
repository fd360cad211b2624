"""Kafka and Trino are the company's: started outside of the Compose project, with names, ports, passwords and an authority of
their own. The flights demo runs through them, and the proof is at zero.

The whole platform: on demand, ``make test-ha``.
"""

from __future__ import annotations

import json
import secrets
import shutil
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from include.platform.compose import pki
from include.platform.settings import ROOT
from tests.compose_platform import DEMO, DEMO_S, PROJECT, VERSION, Compose, taken_down
from tests.ha.conftest import GOAL, WANTED

DOCKER = ROOT / "docker"
CERTIFICATES, SECRETS = DOCKER / "certificates", DOCKER / "secrets"
EXTERNAL_CA = CERTIFICATES / "external-ca.crt"
KAFKA, KAFKA_PORT = "kafka.company.test", 19092
TRINO, TRINO_PORT = "trino.company.test", 18443
PROFILE = "engines"
SETTINGS = {
    "SHUDL_EXTERNAL": "kafka=company_kafka trino=company_trino",
    "KAFKA_BOOTSTRAP": f"{KAFKA}:{KAFKA_PORT}",
}
USERS = ("broker", "airflow", "connect", "flink", "ui")
RIGHTS = """
import json, sys
from include.platform.endpoints import Endpoint
from include.platform.kafka import ensure_access, wait
kafka = Endpoint("", "kafka", "", 0, extra=json.load(sys.stdin))
wait(kafka, 150)
print("\\n".join(ensure_access({"shudl_kafka": kafka})))
"""
"""The company's administrators give ShuDL's users their rights."""


@dataclass
class Company:
    """Two containers that no Compose project knows, and what their owner knows."""

    folder: Path
    passwords: dict[str, str]
    platform: Compose

    def docker(self, *arguments: str, stdin: str = "", timeout_s: float = 180) -> str:
        done = subprocess.run(["docker", *arguments], input=stdin, capture_output=True, text=True, timeout=timeout_s)
        assert done.returncode == 0, f"docker {arguments[0]}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout.strip()

    def authority(self) -> None:
        now = datetime.now(UTC)
        authority = pki.new_authority(now)
        for name in (KAFKA, TRINO):
            key, certificate = pki.issue(authority, name, [name, "localhost", "127.0.0.1"], False, now)
            self.write(name, "tls.crt", certificate.public_bytes(Encoding.PEM))
            self.write(name, "tls.key", pki.key_pem(key))
            self.write(name, "ca.crt", authority.certificate.public_bytes(Encoding.PEM))
        EXTERNAL_CA.write_bytes((self.folder / KAFKA / "ca.crt").read_bytes())

    def write(self, host: str, name: str, data: bytes) -> None:
        path = self.folder / host / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o644)

    def start(self, host: str, image: str, networks: tuple[str, ...], memory: str, **variables: str) -> None:
        """A container of the image whose files are in ``/company``."""
        common = {"TLS_CERT_FILE": "/company/tls.crt", "TLS_KEY_FILE": "/company/tls.key", "TLS_CA_FILE": "/company/ca.crt"}
        told = [f"--env={name}={value}" for name, value in {**common, **variables}.items()]
        command = ["create", "--name", host, "--hostname", host, "--network-alias", host, "--memory", memory, *told]
        self.docker(*command, "--network", networks[0], f"shudl/{image}:{VERSION}")
        for network in networks[1:]:
            self.docker("network", "connect", "--alias", host, network, host)
        self.docker("cp", str(self.folder / host), f"{host}:/company")
        self.docker("start", host)

    def kafka(self) -> None:
        for user in USERS:
            self.write(KAFKA, user, self.passwords[user].encode())
        files = {f"KAFKA_{user.upper()}_PASSWORD_FILE": f"/company/{user}" for user in USERS}
        ports = {"KAFKA_HOST": KAFKA, "KAFKA_PORT": str(KAFKA_PORT), "KAFKA_HEAP": "384m", "KAFKA_RETENTION_HOURS": "24"}
        self.start(KAFKA, "kafka", (f"{PROJECT}_sources", f"{PROJECT}_edge"), "1g", **ports, **files)

    def trino(self) -> None:
        """It reads the lake by the names under which edge knows Nessie and S3, shows the token, and trusts ShuDL's authority."""
        self.write(TRINO, "password", self.passwords["trino"].encode())
        self.write(TRINO, "internal", secrets.token_hex(16).encode())
        self.write(TRINO, "truststore.p12", (CERTIFICATES / "truststore.p12").read_bytes())
        for key in ("s3_access_key", "s3_secret_key", "nessie_token"):
            self.write(TRINO, key, (SECRETS / key).read_bytes())
        theirs = self.platform.services["trino"]["environment"]
        lake = {name: value for name, value in theirs.items() if name.startswith("LAKE_") and not name.endswith("_FILE")}
        files = {f"LAKE_{key.upper()}_FILE": f"/company/{key}" for key in ("s3_access_key", "s3_secret_key")}
        files |= {"TRINO_PASSWORD_FILE": "/company/password", "TRINO_INTERNAL_FILE": "/company/internal"}
        files |= {"TLS_TRUSTSTORE_FILE": "/company/truststore.p12", "LAKE_CATALOG_TOKEN_FILE": "/company/nessie_token"}
        lake["LAKE_CATALOG_URI"] = "https://nessie-proxy:19120/iceberg/"
        sizes = {"TRINO_HOST": TRINO, "TRINO_PORT": str(TRINO_PORT), "TRINO_HEAP": "1280m", "TRINO_QUERY_MEMORY": "600MB"}
        self.start(TRINO, "trino", (f"{PROJECT}_edge", f"{PROJECT}_sources"), "2560m", **lake, **files, **sizes)

    @property
    def connections(self) -> list[dict[str, Any]]:
        return [
            {"connection_id": "company_kafka", "conn_type": "kafka", "extra": json.dumps(self.kafka_client())},
            {
                "connection_id": "company_trino",
                "conn_type": "trino",
                "host": TRINO,
                "port": TRINO_PORT,
                "login": "shudl",
                "password": self.passwords["trino"],
                "extra": json.dumps({"scheme": "https"}),
            },
        ]

    def kafka_client(self, ca: str = "/run/secrets/ca.crt", **more: str) -> dict[str, str]:
        return {
            "bootstrap.servers": SETTINGS["KAFKA_BOOTSTRAP"],
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": "airflow",
            "sasl.password": self.passwords["airflow"],
            "ssl.ca.location": ca,
            **more,
        }

    def give_rights(self) -> str:
        """By a container of the company's, once Kafka answers."""
        where = ("--network", f"{PROJECT}_sources", "--volume", f"{EXTERNAL_CA}:/ca.crt:ro")
        python = ("--entrypoint", "/opt/shudl/install/envs/airflow/bin/python", f"shudl/airflow:{VERSION}", "-c", RIGHTS)
        client = json.dumps(self.kafka_client(ca="/ca.crt"))
        return self.docker("run", "--rm", "--interactive", *where, *python, stdin=client)

    def remove(self) -> None:
        subprocess.run(["docker", "rm", "--force", "--volumes", KAFKA, TRINO], capture_output=True, timeout=120)

    def keep_logs(self, folder: Path) -> list[Path]:
        kept = self.platform.keep_logs(folder)
        for host in (KAFKA, TRINO):
            path = folder / f"{host}.log"
            with path.open("wb") as file:
                subprocess.run(["docker", "logs", host], stdout=file, stderr=subprocess.STDOUT, timeout=60)
            kept.append(path)
        return kept


def set_connection(platform: Compose, connection: dict[str, Any]) -> None:
    """As the form of Airflow's UI does."""
    ca = ssl.create_default_context(cafile=CERTIFICATES / "ca.crt")
    port = platform.compose("port", "airflow-proxy", "8280").strip().rpartition(":")[2]
    headers = {"Content-Type": "application/json"}

    def ask(method: str, path: str, body: dict[str, Any]) -> Any:
        url = f"https://localhost:{port}{path}"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers, method=method)
        with urllib.request.urlopen(request, timeout=30, context=ca) as answer:
            return json.load(answer)

    password = (SECRETS / "airflow_admin").read_text().strip()
    headers["Authorization"] = f"Bearer {ask('POST', '/auth/token', {'username': 'admin', 'password': password})['access_token']}"
    ask("POST", "/api/v2/connections", connection)


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    platform = Compose(profiles=PROFILE, settings=SETTINGS)
    passwords = {name: secrets.token_hex(16) for name in (*USERS, "trino")}
    company = Company(tmp_path_factory.mktemp("company"), passwords, platform)
    with taken_down(WANTED, GOAL, platform):
        platform.run("make", "secrets", timeout_s=120)
        kept = {SECRETS / f"kafka_{user}": (SECRETS / f"kafka_{user}").read_text() for user in ("connect", "flink")}
        before = EXTERNAL_CA.read_bytes() if EXTERNAL_CA.exists() else None
        try:
            company.authority()
            for path in kept:
                path.write_text(passwords[path.name.removeprefix("kafka_")])
            platform.make("secrets", "certificates")
            yield company
        finally:
            company.remove()
            for path, text in kept.items():
                path.write_text(text)
            EXTERNAL_CA.unlink() if before is None else EXTERNAL_CA.write_bytes(before)
            platform.run(str(DOCKER / "platform.sh"), "compose", "down", "--volumes", "--remove-orphans", timeout_s=300)
            platform.run("make", "certificates")
            (DOCKER / "external.yaml").unlink(missing_ok=True)
            shutil.rmtree(company.folder, ignore_errors=True)


def test_settings_that_do_not_agree_are_refused_before_anything_starts(company: Company) -> None:
    wrong = Compose(profiles="", settings={"SHUDL_EXTERNAL": "kafka=company_kafka trino=company_trino"})
    done = wrong.run("make", "check-docker", timeout_s=120)
    assert done.returncode != 0
    assert "kafka is external, and KAFKA_BOOTSTRAP= does not say where it is" in done.stdout
    assert "add engines to COMPOSE_PROFILES" in done.stdout
    done = Compose(settings={"SHUDL_EXTERNAL": "kafak=company_kafka"}).run("make", "check-docker", timeout_s=120)
    assert done.returncode != 0 and "kafak: no such service" in done.stdout


def test_compose_makes_nothing_for_them(company: Company) -> None:
    company.platform.make("up", timeout_s=900)
    there = set(company.platform.containers())
    assert {"connect", "nessie", "flink-taskmanager"} <= there
    assert not {"kafka", "trino", "kafka-access"} & there


def test_the_missing_connection_is_named_before_a_service_starts(company: Company) -> None:
    done = company.platform.run(str(DOCKER / "platform.sh"), "compose", "run", "--rm", "-T", "cli", "up", timeout_s=300)
    assert done.returncode == 1, done.stdout
    assert "Airflow has no connection company_kafka; make it in the UI" in done.stdout
    states = {name: one["State"]["Status"] for name, one in company.platform.containers().items()}
    assert states["connect"] == states["nessie"] == states["s3"] == "created", states


@pytest.mark.timeout(DEMO_S + 600)
def test_the_demo_runs_through_them_with_every_row_the_same(company: Company) -> None:
    company.kafka()
    company.trino()
    assert "granted User:connect" in company.give_rights()
    for connection in company.connections:
        set_connection(company.platform, connection)
    said = company.platform.make("demo", "RUNTIME=docker", f"DEMO={DEMO}", timeout_s=DEMO_S)
    assert "0 rows unresolved" in said, said[-3000:]
    topics = company.docker("exec", KAFKA, "ls", "/data")
    assert "flights.public.flights-0" in topics.split(), "the changes went through the company's Kafka"


def test_status_and_evidence_say_external(company: Company) -> None:
    told = json.loads(company.platform.cli("status", "--json"))
    states = {service["name"]: service["state"] for service in told["services"]}
    assert {name for name, state in states.items() if state == "external"} == {"kafka", "trino"}
    assert set(states.values()) <= {"healthy", "external", "left out"}, states
    urls = {service["name"]: service["url"] for service in told["services"]}
    assert urls["kafka"] == SETTINGS["KAFKA_BOOTSTRAP"] and urls["trino"] == f"https://{TRINO}:{TRINO_PORT}"
    assert "308641" in company.platform.cli("sql", "trino", "SELECT count(*) FROM cdc_flights.flights WHERE month < 12")
    assert "kafka is external" in company.platform.run(
        str(DOCKER / "platform.sh"), "compose", "run", "--rm", "-T", "cli", "logs", "kafka"
    ).stdout


def test_stopping_the_platform_leaves_them_alone(company: Company) -> None:
    company.platform.cli("down", timeout_s=600)
    running = {name: company.docker("inspect", "--format", "{{.State.Running}}", name) for name in (KAFKA, TRINO)}
    assert running == {KAFKA: "true", TRINO: "true"}
    states = {name: one["State"]["Status"] for name, one in company.platform.containers().items()}
    assert states["connect"] == states["nessie"] == "exited", states


def test_no_password_of_theirs_is_shown(company: Company) -> None:
    for name, one in company.platform.containers().items():
        shown = json.dumps(one) + company.docker("logs", one["Id"])
        secret = {**company.passwords, "engines": (SECRETS / "nessie_token").read_text().strip()}
        found = [user for user, password in secret.items() if password in shown]
        assert not found, f"{name} shows the password of {found}"
