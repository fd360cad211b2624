"""The way to the lake's catalogue for engines that are elsewhere: what it lets through is Iceberg's, all else is refused.

HAProxy as in the platform, before a server that answers with what reached it.
"""

from __future__ import annotations

import http.client
import os
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

import docker
from include.platform.compose import pki
from tests.docker.conftest import HAPROXY, port_when_healthy

NAME = f"shudl-test-nessie-proxy-{os.getpid()}"
ENTRYPOINT = ["tini", "--", "bash", "/opt/shudl/docker/services/nessie-proxy/entrypoint.sh"]
TOKEN = "0123456789abcdef"
ECHO = """
defaults
    mode http
    timeout client 10s
    timeout server 10s
    timeout connect 1s
frontend echo
    bind :19120 ssl crt /files/nessie.pem
    http-request return status 200 content-type text/plain lf-string "%[method] %[pathq] (%[req.fhdr(authorization)])"
"""
TABLES = "/iceberg/v1/main/namespaces/cdc_flights/tables"


@pytest.fixture(scope="module")
def proxy(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, ssl.SSLContext]]:
    files = tmp_path_factory.mktemp("nessie-proxy")
    now = datetime.now(UTC)
    authority = pki.new_authority(now)
    for name, names in (("nessie", ["nessie"]), ("nessie-proxy", ["nessie-proxy", "localhost"])):
        key, certificate = pki.issue(authority, name, names, False, now)
        (files / f"{name}.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
        (files / f"{name}.key").write_bytes(pki.key_pem(key))
    (files / "nessie.pem").write_bytes((files / "nessie.crt").read_bytes() + (files / "nessie.key").read_bytes())
    (files / "ca.crt").write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    (files / "token").write_text(TOKEN)
    (files / "echo.cfg").write_text(ECHO)
    files.chmod(0o755)
    for path in files.iterdir():
        path.chmod(0o644)
    common = {"volumes": {str(files): {"bind": "/files", "mode": "ro"}}, "detach": True, "cap_drop": ["ALL"], "read_only": True}
    common["tmpfs"] = {"/run/shudl": "uid=1000,gid=1000,mode=0700"}
    settings = {"NESSIE_HOST": "nessie", "NESSIE_PORT": "19120", "NESSIE_TOKEN_FILE": "/files/token", "LAKE_BRANCH": "main"}
    tls = {"TLS_CERT_FILE": "/files/nessie-proxy.crt", "TLS_KEY_FILE": "/files/nessie-proxy.key", "TLS_CA_FILE": "/files/ca.crt"}
    network = engine.networks.create(NAME)
    made = []
    try:
        alias = {NAME: engine.api.create_endpoint_config(aliases=["nessie"])}
        echo = ["haproxy", "-db", "-f", "/files/echo.cfg"]
        made.append(
            engine.containers.run(
                HAPROXY, echo[1:], entrypoint=echo[:1], name=f"{NAME}-echo", network=NAME, networking_config=alias, **common
            )
        )
        made.append(
            engine.containers.run(
                HAPROXY,
                name=NAME,
                entrypoint=ENTRYPOINT,
                environment={**settings, **tls},
                network=NAME,
                ports={"19120/tcp": ("127.0.0.1", None)},
                **common,
            )
        )
        yield port_when_healthy(made[-1], "19120/tcp"), ssl.create_default_context(cafile=str(files / "ca.crt"))
    finally:
        for container in made:
            container.remove(force=True, v=True)
        network.remove()


def ask(proxy: tuple[int, ssl.SSLContext], method: str, path: str, token: str = TOKEN) -> tuple[int, str]:
    """Status and text of the answer to exactly ``path``."""
    port, context = proxy
    connection = http.client.HTTPSConnection("localhost", port, timeout=30, context=context)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        if token:
            connection.putheader("Authorization", f"Bearer {token}")
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/iceberg/v1/config?warehouse=lake"),
        ("GET", "/iceberg/main/v1/config"),
        ("GET", "/iceberg/v1/main/namespaces"),
        ("HEAD", f"{TABLES}/flights"),
        ("GET", "/iceberg/v1/published%7Clake/namespaces/marts/tables/fct_flights"),
        ("POST", "/iceberg/v1/main/namespaces"),
        ("POST", f"{TABLES}/flights"),
        ("DELETE", f"{TABLES}/a.b%1Fc?purgeRequested=false"),
        ("POST", "/iceberg/v1/main%7Clake/transactions/commit"),
        ("POST", "/iceberg/v1/published/namespaces/marts/tables/fct_flights/metrics"),
    ],
)
def test_the_catalogue_is_let_through_and_the_token_stays_here(proxy, method: str, path: str) -> None:
    status, text = ask(proxy, method, path)
    assert status == 200
    assert method == "HEAD" or text == f"{method} {path} ()"


@pytest.mark.parametrize("token", ["", "wrong", TOKEN.upper(), TOKEN[:-1], f"{TOKEN}0"])
def test_who_does_not_show_the_token_is_refused(proxy, token: str) -> None:
    status, text = ask(proxy, "GET", "/iceberg/v1/config", token)
    assert status == 401 and "the token is missing or wrong" in text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v2/trees"),
        ("GET", "/q/metrics"),
        ("GET", "/"),
        ("POST", "/iceberg/v1/config"),
        ("POST", "/iceberg/v1/published/namespaces"),
        ("POST", "/iceberg/v1/published%7Clake/namespaces/marts/tables/fct_flights"),
        ("DELETE", "/iceberg/v1/published/namespaces/marts/tables/fct_flights"),
        ("POST", "/iceberg/v1/main2/namespaces"),
        ("POST", "/iceberg/v1/other/namespaces/main/tables"),
        ("PUT", "/iceberg/v1/published/namespaces/marts/tables/fct_flights/metrics"),
        ("POST", "/iceberg/v1/main/../published/namespaces"),
        ("POST", "/iceberg/v1/main/%2e%2e/published/namespaces"),
        ("POST", "/iceberg/v1/main/..%2fpublished/namespaces"),
        ("POST", "/iceberg/v1/main/.;/published/namespaces"),
        ("POST", "/iceberg/v1/main//namespaces"),
        ("GET", "/iceberg/v1/..\\..\\api/v2/trees"),
        ("GET", "/iceberg/v1/%252e%252e/trees"),
        ("GET", "http://nessie/iceberg/v1/config"),
    ],
)
def test_all_else_is_refused(proxy, method: str, path: str) -> None:
    status, text = ask(proxy, method, path)
    assert status == 403 and "is not for engines that are elsewhere" in text, (status, text)
