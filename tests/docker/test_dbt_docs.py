"""dbt's pages: served read only, whole while they are made anew, and to everybody though one client says nothing."""

from __future__ import annotations

import http.client
import importlib.util
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from include.platform.settings import ROOT

FILE = ROOT / "docker" / "services" / "dbt-docs" / "serve.py"


@pytest.fixture(scope="module")
def docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dbt_docs_serve", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pages(docs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Pages whose dbt is a script: ``tmp_path/dbt``."""
    made = tmp_path / "made"
    made.mkdir()
    for name in (docs.MANIFEST, docs.PARTIAL_PARSE):
        (made / name).write_text("{}")
    (tmp_path / "password").write_text("correct-horse\n")
    monkeypatch.setattr(docs, "executable", lambda: tmp_path / "dbt")
    monkeypatch.setattr(docs, "folder", lambda target: made)
    monkeypatch.setenv("TRINO_HOST", "trino")
    monkeypatch.setenv("TRINO_PORT", "8080")
    monkeypatch.setenv("TRINO_USER", "shudl")
    monkeypatch.setenv("TRINO_PASSWORD_FILE", str(tmp_path / "password"))
    return docs.Pages(tmp_path / "work")


def dbt(folder: Path, script: str) -> None:
    """A dbt that runs ``script``, with ``$target`` the folder that it is to write to."""
    file = folder / "dbt"
    file.write_text(f'#!/bin/bash\nwhile [ "$1" != --target-path ]; do shift; done\ntarget=$2\n{script}\n')
    file.chmod(0o755)


def test_the_last_page_stays_when_dbt_fails(pages, tmp_path: Path) -> None:
    dbt(tmp_path, 'echo "<p>one</p>" >"$target/static_index.html"')
    assert pages.make(with_catalog=False) == "" and pages.page == b"<p>one</p>\n"
    dbt(tmp_path, "echo no such host: trino; exit 1")
    wrong = pages.make(with_catalog=True)
    assert "no such host: trino" in wrong and pages.page == b"<p>one</p>\n"


def test_dbt_is_given_the_manifest_and_trinos_password(pages, tmp_path: Path) -> None:
    dbt(
        tmp_path, 'ls "$target" >"$target/static_index.html"; echo "$DBT_ENV_SECRET_TRINO_PASSWORD" >>"$target/static_index.html"'
    )
    assert pages.make(with_catalog=True) == ""
    assert pages.page.split() == [b"manifest.json", b"partial_parse.msgpack", b"static_index.html", b"correct-horse"]


@pytest.fixture
def served(docs: ModuleType, pages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, ssl.SSLContext]]:
    """The port at which a page is served over TLS, and who trusts it."""
    key, certificate = tmp_path / "tls.key", tmp_path / "tls.crt"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(certificate)]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    monkeypatch.setenv("TLS_CERT_FILE", str(certificate))
    monkeypatch.setenv("TLS_KEY_FILE", str(key))
    pages.page = b"<p>docs</p>"
    server = docs.server(pages, "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1], ssl.create_default_context(cafile=str(certificate))
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/", 200, b"<p>docs</p>"),
        ("GET", "/index.html?x=1", 200, b"<p>docs</p>"),
        ("HEAD", "/", 200, b""),
        ("GET", "/../../etc/passwd", 404, None),
        ("GET", "/manifest.json", 404, None),
        ("POST", "/", 501, None),
    ],
)
def test_nothing_but_the_page_is_served(served, method: str, path: str, status: int, body: bytes | None) -> None:
    port, context = served
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=20)
    connection.request(method, path)
    answer = connection.getresponse()
    assert answer.status == status
    assert body is None or answer.read() == body
    connection.close()


def test_a_client_that_says_nothing_stops_nobody(served) -> None:
    port, context = served
    with socket.create_connection(("127.0.0.1", port), timeout=20):
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=20)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()
