"""ClickHouse's entrypoint: what it starts, what it renders, and the lake as ClickHouse reads it, pinned to a metadata file."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from xml.etree import ElementTree

import boto3
import clickhouse_connect
import httpx
import pyarrow
import pytest
from botocore.config import Config
from clickhouse_connect.driver.exceptions import ClickHouseError
from pyiceberg.catalog.sql import SqlCatalog

from include.platform.settings import ROOT, settings

ENTRYPOINT = ROOT / "docker/services/clickhouse/entrypoint.sh"
KEY, SECRET, PASSWORD = "lakekey", "se<cr&et>", "pass word"


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clickhouse")
    for name, text in (("password", PASSWORD), ("key", KEY), ("secret", SECRET)):
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Iterator[Callable[..., None]]:
    """Starts an entrypoint and waits until a URL answers; stops it at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def run(script: Path, environment: dict[str, str], url: str) -> None:
        log = (folder / f"{script.parent.name}.log").open("wb")
        process = subprocess.Popen([script], env={**os.environ, **environment}, stdout=log, stderr=subprocess.STDOUT)
        started.append(process)
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(url, timeout=5, verify=environment.get("TLS_CA_FILE", True))
                return
            except httpx.TransportError:
                assert process.poll() is None, Path(log.name).read_text()
                assert time.monotonic() < deadline, f"{url} did not answer within 60 s"
                time.sleep(0.2)

    yield run
    for process in reversed(started):
        process.terminate()
        try:
            process.wait(4)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="module")
def certificate(folder: Path) -> dict[str, str]:
    """The variables of TLS, for a certificate of localhost and the authority that signed it."""
    (folder / "san").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    for command in (
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=authority",
        "req -newkey rsa:2048 -nodes -keyout tls.key -out tls.csr -subj /CN=localhost",
        "x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out tls.crt -days 2 -extfile san",
    ):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
    return {f"TLS_{name}_FILE": str(folder / file) for name, file in (("CERT", "tls.crt"), ("KEY", "tls.key"), ("CA", "ca.crt"))}


def clickhouse_environment(folder: Path, port: int, s3: str) -> dict[str, str]:
    return {
        "CLICKHOUSE_HOST": "127.0.0.1",
        "CLICKHOUSE_PORT": str(port),
        "CLICKHOUSE_USER": "tester",
        "CLICKHOUSE_PASSWORD_FILE": str(folder / "password"),
        "CLICKHOUSE_DATA_DIR": str(folder / "data"),
        "RUN_DIR": str(folder / "run"),
        "LAKE_S3_ENDPOINT": s3,
        "LAKE_S3_REGION": "us-east-1",
        "LAKE_S3_ACCESS_KEY_FILE": str(folder / "key"),
        "LAKE_S3_SECRET_KEY_FILE": str(folder / "secret"),
        "CHDB_PYTHON": str(settings.python("chdb")),
        "CLICKHOUSE_BIN": "",
    }


def test_without_a_server_it_needs_the_engines_python(folder: Path) -> None:
    environment = clickhouse_environment(folder, 1, "http://127.0.0.1:1") | {"CHDB_PYTHON": ""}
    ended = subprocess.run([ENTRYPOINT], env={**os.environ, **environment}, capture_output=True, text=True, timeout=20)
    assert (ended.returncode, ended.stderr) == (64, "clickhouse: CHDB_PYTHON must be set\n")


def test_a_server_on_the_machine_gets_its_configuration(folder: Path, tmp_path: Path) -> None:
    server = tmp_path / "clickhouse"
    server.write_text('#!/bin/sh\necho "$@"\nenv\n')
    server.chmod(0o755)
    environment = clickhouse_environment(folder, 8123, "http://s3:1") | {"CLICKHOUSE_BIN": str(server), "RUN_DIR": str(tmp_path)}
    ended = subprocess.run([ENTRYPOINT], env={**os.environ, **environment}, capture_output=True, text=True, timeout=20)
    arguments, _, inherited = ended.stdout.partition("\n")
    config = tmp_path / "config" / "config.xml"
    assert arguments == f"server --config-file={config}"
    assert PASSWORD not in inherited
    assert SECRET not in inherited
    assert ElementTree.parse(config).findtext("http_port") == "8123"
    users = ElementTree.parse(ElementTree.parse(config).findtext("user_directories/users_xml/path"))
    assert users.findtext("users/tester/password_sha256_hex") == hashlib.sha256(PASSWORD.encode()).hexdigest()
    lake = config.parent / "config.d" / "lake.xml"
    assert ElementTree.parse(lake).findtext("named_collections/lake_s3/secret_access_key") == SECRET
    assert {path.stat().st_mode & 0o777 for path in (config, lake, config.parent / "users.xml")} == {0o600}


def server_configuration(folder: Path, where: Path, **given: str) -> Path:
    """The configuration with which a server would be started."""
    server = where / "clickhouse"
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    environment = clickhouse_environment(folder, 8123, "http://s3:1") | {"CLICKHOUSE_BIN": str(server), "RUN_DIR": str(where)}
    environment |= {"CLICKHOUSE_DATA_DIR": str(where / "data"), **given}
    subprocess.run([ENTRYPOINT], env={**os.environ, **environment}, check=True, timeout=20)
    return where / "config" / "config.xml"


def test_a_server_with_a_certificate_has_no_plain_port(folder: Path, certificate: dict[str, str], tmp_path: Path) -> None:
    given = {"CLICKHOUSE_HOST": "clickhouse", "CLICKHOUSE_BIND": "0.0.0.0", "CLICKHOUSE_TCP_PORT": "9000", **certificate}
    config = server_configuration(folder, tmp_path, **given)
    files = [ElementTree.parse(path) for path in (config, *(config.parent / "config.d").iterdir())]
    ports = {(element.tag, element.text) for file in files for element in file.getroot() if "port" in element.tag}
    assert ports == {("https_port", "8123"), ("tcp_port_secure", "9000")}
    assert files[0].findtext("listen_host") == "0.0.0.0"
    openssl = {element.tag: element.text for file in files for element in file.findall("openSSL/*/*")}
    assert openssl["certificateFile"] == certificate["TLS_CERT_FILE"]
    assert openssl["privateKeyFile"] == certificate["TLS_KEY_FILE"]
    assert openssl["caConfig"] == certificate["TLS_CA_FILE"]


def test_the_engine_takes_the_servers_configuration(folder: Path, certificate: dict[str, str], tmp_path: Path) -> None:
    config = server_configuration(folder, tmp_path, CLICKHOUSE_USER="default", CLICKHOUSE_TCP_PORT="9000", **certificate)
    users = config.parent / "users.xml"
    hashes = [hashlib.sha256(text).hexdigest() for text in (PASSWORD.encode(), b"")]  # chdb's own user has no password
    users.write_text(users.read_text().replace(*hashes))
    query = """SELECT (SELECT groupArray(name) FROM system.named_collections), (SELECT groupArray(auth_type) FROM system.users),
        (SELECT value FROM system.server_settings WHERE name = 'max_server_memory_usage')"""
    code = f"import chdb; print(chdb.connect('{tmp_path}/data?config-file={config}').query({query!r}, 'TSV').bytes().decode())"
    ended = subprocess.run([settings.python("chdb"), "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.stdout.strip() == "['lake_s3']\t[['sha256_password']]\t1500000000", ended.stderr


@pytest.fixture(scope="module")
def s3(folder: Path, run: Callable[..., None]) -> str:
    names = ["S3", "S3_MASTER", "S3_MASTER_GRPC", "S3_VOLUME", "S3_VOLUME_GRPC", "S3_FILER", "S3_FILER_GRPC", "S3_GRPC"]
    ports = dict(zip(names, map(str, free_ports(len(names))), strict=True))
    environment = {f"{name}_PORT": port for name, port in ports.items()}
    environment |= {"WEED_BIN": str(settings.engines / "seaweedfs" / "bin" / "weed"), "S3_HOST": "127.0.0.1"}
    environment |= {"S3_DATA_DIR": str(folder / "s3"), "RUN_DIR": str(folder / "s3-run")}
    environment |= {"S3_ACCESS_KEY_FILE": str(folder / "key"), "S3_SECRET_KEY_FILE": str(folder / "secret")}
    url = f"http://127.0.0.1:{ports['S3']}"
    run(ROOT / "docker/services/s3/entrypoint.sh", environment, url)
    options = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 20})
    keys = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET}
    client = boto3.client("s3", endpoint_url=url, region_name="us-east-1", config=options, **keys)
    client.create_bucket(Bucket="lake")
    return url


@pytest.fixture(scope="module")
def sql(folder: Path, run: Callable[..., None], s3: str) -> Callable[[str], str]:
    """Runs a statement on ClickHouse as the entrypoint starts it."""
    (port,) = free_ports(1)
    run(ENTRYPOINT, clickhouse_environment(folder, port, s3), f"http://127.0.0.1:{port}/ping")

    def sql(statement: str) -> str:
        answer = httpx.post(f"http://127.0.0.1:{port}", content=statement, auth=("tester", PASSWORD), timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.text.strip()

    return sql


def test_a_table_is_read_at_each_of_its_metadata_files(folder: Path, s3: str, sql: Callable[[str], str]) -> None:
    keys = {"s3.endpoint": s3, "s3.access-key-id": KEY, "s3.secret-access-key": SECRET, "s3.region": "us-east-1"}
    catalog = SqlCatalog("test", uri=f"sqlite:///{folder}/catalog.db", warehouse="s3://lake/wh", **keys)
    catalog.create_namespace("ns")
    rows = pyarrow.table({"n": pyarrow.array(range(1000), pyarrow.int64()), "s": [f"row {n}" for n in range(1000)]})
    table = catalog.create_table("ns.t", schema=rows.schema)
    expected = {table.metadata_location: "0\t0"}
    table.append(rows)
    expected[table.metadata_location] = "1000\t499500"
    table.delete("n < 10")
    expected[table.metadata_location] = "990\t499455"
    with table.update_schema() as update:
        update.rename_column("s", "label")
    expected[table.metadata_location] = "990\t499455"
    table.overwrite(rows.slice(0, 3).rename_columns(["n", "label"]))
    expected[table.metadata_location] = "3\t3"
    url = table.location().replace("s3://", f"{s3}/")
    for location, figures in [*expected.items(), *reversed(expected.items())]:
        pin = f"iceberg_metadata_file_path = '{location.removeprefix(table.location() + '/')}'"
        source = f"icebergS3(lake_s3, url = '{url}', SETTINGS {pin})"
        assert sql(f"SELECT count(), ifNull(sum(n), 0) FROM {source}") == figures, location
        assert sql(f"SELECT count() FROM {source}") == figures.split("\t")[0], location


def test_the_lakes_keys_are_not_shown(sql: Callable[[str], str]) -> None:
    assert sql("SELECT name, mapValues(collection) FROM system.named_collections") == "lake_s3\t['[HIDDEN]','[HIDDEN]']"


@pytest.fixture(scope="module")
def secure_port(folder: Path, certificate: dict[str, str], run: Callable[..., None]) -> int:
    """Port of a front with a certificate."""
    (port,) = free_ports(1)
    environment = clickhouse_environment(folder, port, "http://127.0.0.1:1") | certificate
    environment |= {"CLICKHOUSE_HOST": "localhost", "CLICKHOUSE_BIND": "127.0.0.1"}
    environment |= {"CLICKHOUSE_DATA_DIR": str(folder / "secure"), "RUN_DIR": str(folder / "secure-run")}
    run(ENTRYPOINT, environment, f"https://localhost:{port}/ping")
    return port


def test_with_a_certificate_it_answers_to_https_only(certificate: dict[str, str], secure_port: int) -> None:
    access = {"host": "localhost", "port": secure_port, "username": "tester", "password": PASSWORD}
    client = clickhouse_connect.get_client(**access, interface="https", ca_cert=certificate["TLS_CA_FILE"])
    assert client.query("SELECT sum(number) FROM numbers(100000)").result_rows == [(4999950000,)]
    client.close()
    with pytest.raises(ClickHouseError):
        clickhouse_connect.get_client(**access, interface="https")  # of an authority that the system does not know
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://localhost:{secure_port}/ping", timeout=5)


def test_a_certificate_without_its_key_is_refused(folder: Path, certificate: dict[str, str]) -> None:
    environment = clickhouse_environment(folder, 1, "http://127.0.0.1:1") | certificate | {"TLS_KEY_FILE": str(folder / "ca.key")}
    ended = subprocess.run([ENTRYPOINT], env={**os.environ, **environment}, capture_output=True, text=True, timeout=20)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"chdb_front: TLS_CERT_FILE={folder}/tls.crt, TLS_KEY_FILE={folder}/ca.key: not a certificate")
