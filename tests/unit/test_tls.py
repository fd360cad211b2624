"""Clients sign in and speak TLS where their connections say so, and are what they were where they do not."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from include.cdc.changelog import source_table
from include.cdc.connector import settings_of
from include.cdc.jobs import TableJob, mirror_source
from include.cdc.pipelines import Pipeline
from include.cdc.source import Column, SourceTable
from include.cdc.types import carried
from include.lake.catalog import Lake
from include.platform import kafka, spark
from include.platform.airflow import AirflowClient, AirflowUnreachable
from include.platform.endpoints import Endpoint, local_endpoints
from include.platform.settings import PORT_OFFSETS, Settings, settings
from include.serving import dbt

SECURE = {
    "bootstrap.servers": "kafka:9092",
    "security.protocol": "SASL_SSL",
    "sasl.mechanism": "SCRAM-SHA-512",
    "sasl.username": "airflow",
    "sasl.password": "hush-hush",
    "ssl.ca.location": "/run/secrets/ca.crt",
}
PLAIN = {"bootstrap.servers": "kafka:9092"}
PIPELINE = Pipeline.model_validate({"source": "shop", "connection": "shop_db", "tables": {"public.t": {"mode": "both"}}})
TABLE = SourceTable("public.t", (Column("id", "int4", False, carried("int4")),), ("id",))


def endpoints(extra: dict[str, str], scheme: str = "http") -> dict[str, Endpoint]:
    return {
        "shudl_kafka": Endpoint("shudl_kafka", "kafka", "kafka", 9092, extra=extra),
        "shudl_registry": Endpoint("shudl_registry", "http", "registry", 8085, extra={"scheme": scheme}),
        "shudl_trino": Endpoint("shudl_trino", "trino", "trino", 8080, "shudl", "pw", extra={"scheme": scheme}),
        "shudl_clickhouse": Endpoint("shudl_clickhouse", "generic", "ch", 8123, "shudl", "pw", extra={"scheme": scheme}),
        "shudl_nessie": Endpoint("shudl_nessie", "http", "nessie", 19120, extra={"scheme": scheme}),
        "shudl_s3": Endpoint("shudl_s3", "generic", "s3", 9000, "key", "secret", extra={"scheme": scheme}),
    }


def sources(extra: dict[str, str]) -> tuple[str, str]:
    there = endpoints(extra)
    return (
        mirror_source(TableJob(PIPELINE, TABLE, "0" * 32, Path("/checkpoints")), there),
        source_table(PIPELINE, TABLE, 7, there),
    )


def test_a_kafka_client_gets_all_that_the_connection_holds_and_shows_no_password() -> None:
    config = kafka.client_config(endpoints(SECURE)["shudl_kafka"], {"group.id": "g"})
    assert config == {**SECURE, "group.id": "g"}
    assert "hush-hush" not in repr(config) and "hush-hush" not in f"{config}" and "'airflow'" in repr(config)


def test_kafka_clients_take_the_settings() -> None:
    kafka.admin_client(Endpoint("k", "kafka", "h", 1, extra=PLAIN | {"security.protocol": "SSL"}))


def test_flink_is_told_how_to_speak_and_no_secret() -> None:
    said = "'properties.security.protocol' = 'SASL_SSL', 'properties.sasl.mechanism' = 'SCRAM-SHA-512', "
    for plain, secure in zip(sources(PLAIN), sources(SECURE), strict=True):
        assert said in secure and secure.replace(said, "") == plain
        assert "hush-hush" not in secure and "airflow" not in secure and "security" not in plain


@pytest.mark.parametrize("tls", [{}, {"sslmode": "verify-full", "sslrootcert": "/run/secrets/ca.crt"}])
def test_debezium_verifies_as_the_connection_says(tls: dict[str, str]) -> None:
    source = Endpoint("shop_db", "postgres", "db", 5432, extra=tls)
    told = settings_of(PIPELINE, [TABLE], source, "http://registry", "/secrets", "")
    assert {name: value for name, value in told.items() if name.startswith("database.ssl")} == {
        f"database.{name}": value for name, value in tls.items()
    }


def test_the_lake_is_reached_as_its_connections_say() -> None:
    lake = Lake.from_endpoints(endpoints(PLAIN, "https"))
    assert "'uri'='https://nessie:19120/iceberg/'" in lake.flink_catalog()
    assert "'s3.endpoint'='https://s3:9000'" in lake.flink_catalog()
    assert lake.spark_conf()["spark.sql.catalog.lake.uri"] == "https://nessie:19120/iceberg/main"
    assert lake.http_url("s3://lake/wh/t") == "https://s3:9000/lake/wh/t"


def test_dbt_is_told_the_schemes_and_whom_to_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/run/secrets/ca.crt")
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    told = dbt.environment(endpoints(PLAIN, "https"))
    assert (told["DBT_TRINO_SCHEME"], told["DBT_TRINO_METHOD"], told["DBT_CLICKHOUSE_SECURE"]) == ("https", "ldap", "True")
    assert told["SSL_CERT_FILE"] == "/run/secrets/ca.crt" and "REQUESTS_CA_BUNDLE" not in told


def test_drivers_are_reached_by_name_and_listen_where_they_can(tmp_path: Path) -> None:
    here = Settings(tmp_path, 21000, install=settings.installed)
    told = spark.properties(local_endpoints(here), here)
    assert (told["spark.driver.host"], told["spark.driver.bindAddress"]) == ("127.0.0.1", "127.0.0.1")
    there = replace(here, host="airflow-scheduler", runtime="docker")
    told = spark.properties(local_endpoints(here), there)
    assert (told["spark.driver.host"], told["spark.driver.bindAddress"]) == ("airflow-scheduler", "0.0.0.0")


class FakeAcls:
    """What the admin client does with passwords and rights."""

    def __init__(self) -> None:
        self.rights: set[Any] = set()
        self.passwords: dict[str, bytes] = {}

    def alter_user_scram_credentials(self, wanted: list[Any], **_: Any) -> dict[str, Answer]:
        self.passwords |= {one.user: one.password for one in wanted}
        return {one.user: Answer() for one in wanted}

    def describe_acls(self, wanted: Any, **_: Any) -> Answer:
        return Answer([right for right in self.rights if right.principal == wanted.principal])

    def create_acls(self, wanted: list[Any], **_: Any) -> dict[Any, Answer]:
        self.rights |= set(wanted)
        return {right: Answer() for right in wanted}

    def delete_acls(self, wanted: list[Any], **_: Any) -> dict[Any, Answer]:
        gone = {one._to_tuple() for one in wanted}
        self.rights = {right for right in self.rights if right._to_tuple() not in gone}
        return {one: Answer() for one in wanted}


class Answer:
    def __init__(self, value: Any = None) -> None:
        self.value = value

    def result(self, timeout: float) -> Any:
        return self.value


@pytest.fixture
def acls(monkeypatch: pytest.MonkeyPatch) -> FakeAcls:
    fake = FakeAcls()
    monkeypatch.setattr(kafka, "admin_client", lambda endpoint: fake)
    monkeypatch.setattr(kafka, "wait", lambda endpoint, timeout_s: None)
    return fake


def test_principals_have_their_rights_and_no_others(acls: FakeAcls) -> None:
    passwords = dict.fromkeys(kafka.SECRETS, "pw")
    granted = kafka.ensure_access(endpoints(SECURE), passwords)
    assert "granted User:flink: ALLOW READ GROUP cdc.*" in granted and "granted User:flink: DENY READ TOPIC _connect_*" in granted
    assert acls.passwords == {principal: b"pw" for principal in passwords}
    assert kafka.ensure_access(endpoints(SECURE)) == []
    kept = set(acls.rights)
    acls.rights |= set(kafka.bindings(kafka.Grant("flink", "TOPIC", "shop.*", ("WRITE",), "none")))
    assert kafka.ensure_access(endpoints(SECURE), passwords) == ["took away User:flink: ALLOW WRITE TOPIC shop.*"]
    assert acls.rights == kept


def test_a_kafka_without_sasl_is_left_alone(acls: FakeAcls) -> None:
    assert kafka.ensure_access(endpoints(PLAIN), {"flink": "pw"}) == []
    assert not acls.rights and not acls.passwords


def test_the_table_of_rights() -> None:
    assert {grant.principal for grant in kafka.GRANTS} == set(kafka.SECRETS)
    for grant in kafka.GRANTS:
        assert kafka.bindings(grant)
    may = {(g.principal, g.kind, o) for g in kafka.GRANTS if g.allow for o in g.operations}
    assert {principal for principal, kind, deed in may if deed in ("WRITE", "CREATE")} == {"connect"}
    assert not {deed for _, _, deed in may} & {"ALL", "DELETE", "ALTER", "ALTER_CONFIGS", "CLUSTER_ACTION"}
    root = Path(__file__).parents[2]
    workers = (root / "docker/services/connect/config/connect.properties.template").read_text()
    assert f"group.id={kafka.CONNECT_GROUP}\n" in workers
    assert workers.count(".storage.topic=_connect_") == 3


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"scheduler": {"status": "healthy"}}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def authority(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    certificate, key = tmp_path / "ca.crt", tmp_path / "tls.key"
    private, name, now = ec.generate_private_key(ec.SECP256R1()), x509.Name([]), datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, private.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
    alternatives = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    signed = made.add_extension(alternatives, critical=True).sign(private, hashes.SHA256())
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    unlocked = serialization.NoEncryption()
    key.write_bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, unlocked))
    return certificate, key


@pytest.fixture
def airflow_port(authority: tuple[Path, Path]) -> Iterator[int]:
    """An Airflow that speaks TLS, with a certificate that no system trusts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Healthy)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


class Secure(Settings):
    def scheme(self, name: str) -> str:
        return "https"


def test_airflow_is_trusted_by_the_platforms_authority_alone(
    tmp_path: Path, authority: tuple[Path, Path], airflow_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = Secure(tmp_path, airflow_port - PORT_OFFSETS["airflow"])
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    with AirflowClient(s) as stranger:
        assert stranger.health() == {}
        with pytest.raises(AirflowUnreachable, match="certificate verify failed"):
            stranger.dags()
    monkeypatch.setenv("SSL_CERT_FILE", str(authority[0]))
    with AirflowClient(s) as airflow:
        assert airflow.health()["scheduler"] == "healthy"
