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
import httpx
import pyarrow
import pytest
from botocore.config import Config
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
                httpx.get(url, timeout=5)
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
