"""The filter before the Docker API, on a real engine: what it lets through works, everything else is refused.

Its containers are named after this process, and removed at the end.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from docker.errors import APIError

import docker
from tests.docker.conftest import HAPROXY, port_when_healthy

PREFIX = f"shudl-test-filter-{os.getpid()}"
LISTED, OTHER = f"{PREFIX}-kafka-1", f"{PREFIX}-kafka-12"
ENTRYPOINT = ["tini", "--", "bash", "/opt/shudl/docker/services/docker-filter/entrypoint.sh"]


def _socket_file() -> str:
    address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not address.startswith("unix://"):
        pytest.skip(f"the filter needs the engine's socket, and DOCKER_HOST={address}")
    return address.removeprefix("unix://")


@pytest.fixture(scope="module")
def filter_port(engine: docker.DockerClient) -> Iterator[int]:
    """The port of a filter that knows the container LISTED. OTHER runs too, and is not in its list."""
    made = []
    try:
        for name in (LISTED, OTHER):
            command = "trap 'exit 0' TERM; echo here I am; while :; do sleep 0.1; done"
            made.append(
                engine.containers.run(HAPROXY, ["-c", command], entrypoint="bash", name=name, detach=True, network_mode="none")
            )
        path = _socket_file()
        made.append(
            engine.containers.run(
                HAPROXY,
                name=f"{PREFIX}-filter",
                entrypoint=ENTRYPOINT,
                environment={"FILTER_CONTAINERS": f"{LISTED} {PREFIX}-not-there-1"},
                user="1000:1000",
                group_add=[str(Path(path).stat().st_gid)],
                volumes={path: {"bind": "/var/run/docker.sock", "mode": "rw"}},
                ports={"2375/tcp": ("127.0.0.1", None)},
                read_only=True,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges:true"],
                tmpfs={"/run/shudl": "uid=1000,gid=1000,mode=0700"},
                detach=True,
            )
        )
        yield port_when_healthy(made[-1], "2375/tcp")
    finally:
        for container in made:
            container.remove(force=True, v=True)


@pytest.fixture(scope="module")
def api(filter_port: int) -> Iterator[docker.APIClient]:
    """docker-py, as Airflow's tasks use it."""
    with docker.APIClient(base_url=f"tcp://127.0.0.1:{filter_port}", version="auto", timeout=60) as client:
        yield client


def _send(port: int, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """Status and text of the answer to exactly ``path``: nothing is quoted or tidied on its way."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in {**({"Content-Length": str(len(body))} if body else {}), **(headers or {})}.items():
            connection.putheader(name, value)
        connection.endheaders(body.encode() if body else None)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def _refused(port: int, method: str, path: str, **rest) -> None:
    status, text = _send(port, method, path, **rest)
    assert status == 403, (method, path, status, text[:200])
    assert json.loads(text) == {"message": f"docker-filter: {method} {path} is not allowed"}


def _running(engine: docker.DockerClient, name: str) -> bool:
    return engine.containers.get(name).status == "running"


def test_a_listed_container_is_inspected_stopped_started_and_restarted(api, engine) -> None:
    assert api.ping() and api.version()["ApiVersion"]
    assert api.inspect_container(LISTED)["State"]["Running"]
    assert b"here I am" in api.logs(LISTED, tail=100, timestamps=True, since=1)
    api.stop(LISTED, timeout=5)
    assert not _running(engine, LISTED)
    api.start(LISTED)
    assert _running(engine, LISTED)
    before = api.inspect_container(LISTED)["State"]["StartedAt"]
    api.restart(LISTED, timeout=5)
    assert api.inspect_container(LISTED)["State"]["StartedAt"] > before
    assert b"here I am" in api.logs(LISTED)
    api.stop(LISTED)
    api.start(LISTED)


def test_a_listed_container_that_was_not_created_is_said_to_be_missing(api) -> None:
    with pytest.raises(docker.errors.NotFound):
        api.inspect_container(f"{PREFIX}-not-there-1")


def test_a_container_that_mounts_the_machine_cannot_be_created(api, engine) -> None:
    host = api.create_host_config(binds=["/:/host"], privileged=True)
    with pytest.raises(APIError) as refused:
        api.create_container(HAPROXY, ["cat", "/host/etc/shadow"], host_config=host, name=f"{PREFIX}-evil")
    assert refused.value.response.status_code == 403
    assert "docker-filter: POST /v1." in refused.value.explanation and "is not allowed" in refused.value.explanation
    assert not engine.containers.list(all=True, filters={"name": f"{PREFIX}-evil"})


def test_no_other_container_can_be_touched(filter_port, engine) -> None:
    listed_id = engine.containers.get(LISTED).id
    for name in (OTHER, f"{LISTED}2", LISTED[:-1], LISTED.upper(), f"{PREFIX}-filter", listed_id, listed_id[:12], "", "."):
        for method, what in (("GET", "json"), ("GET", "logs"), ("POST", "start"), ("POST", "stop"), ("POST", "restart")):
            _refused(filter_port, method, f"/v1.43/containers/{name}/{what}")
    assert _running(engine, OTHER) and _running(engine, LISTED)


@pytest.mark.parametrize(
    "request_line",
    [
        *(
            f"POST /containers/{LISTED}/{deed}"
            for deed in ("exec", "attach", "kill", "rename", "update", "pause", "unpause", "wait")
        ),
        *(f"POST /containers/{LISTED}/{deed}" for deed in ("resize", "checkpoints", "json", "logs", "start/..", "")),
        *(f"GET /containers/{LISTED}/{part}" for part in ("archive", "export", "top", "stats", "changes", "attach/ws", "start")),
        *(f"{method} /containers/{LISTED}/{part}" for method in ("PUT", "HEAD") for part in ("archive", "json")),
        f"DELETE /containers/{LISTED}",
        "GET /containers/json",
        "POST /containers/create",
        "POST /containers/prune",
        *(
            f"GET /{kind}"
            for kind in ("images/json", "volumes", "networks", "info", "events", "system/df", "swarm", "nodes", "secrets")
        ),
        *(
            f"GET /{kind}"
            for kind in ("configs", "services", "tasks", "plugins", "distribution/x/json", "", "metrics", "_ping/x")
        ),
        *(f"POST /{kind}" for kind in ("build", "images/create", "images/load", "volumes/create", "networks/create", "session")),
        *(
            f"POST /{kind}"
            for kind in ("swarm/init", "plugins/pull", "exec/1/start", "commit", "auth", "grpc", "_ping", "version")
        ),
        "OPTIONS /_ping",
        "TRACE /_ping",
    ],
)
@pytest.mark.parametrize("version", ["", "/v1.43"])
def test_everything_else_is_refused(filter_port, version: str, request_line: str) -> None:
    method, _, path = request_line.partition(" ")
    if method == "HEAD":
        assert _send(filter_port, method, version + path)[0] == 403
    else:
        _refused(filter_port, method, version + path)


@pytest.mark.parametrize(
    "path",
    [
        f"/containers/{LISTED}%2Fjson",
        f"/containers%2F{LISTED}/json",
        f"/%63ontainers/{LISTED}/json",
        f"/containers/{LISTED[:-1]}%31/json",
        f"/containers/{LISTED}/../{OTHER}/json",
        f"/containers/{LISTED}/%2e%2e/{OTHER}/json",
        f"/containers/{LISTED}/json/../../{OTHER}/json",
        f"/_ping/../containers/{OTHER}/json",
        f"//containers/{LISTED}/json",
        f"/containers//{LISTED}/json",
        f"/containers/{LISTED}//json",
        f"/containers/{LISTED}/json/",
        f"/./containers/{LISTED}/json",
        f"/containers/{LISTED}/json;x=1",
        f"/containers/{LISTED}/json%00",
        f"/containers/{LISTED}/json%20",
        f"/containers/{LISTED}\\json",
        f"/v1.43//containers/{LISTED}/json",
        f"/v1.43/v1.43/containers/{LISTED}/json",
        f"/v1.43/../containers/{LISTED}/json",
        f"/v2.0/containers/{LISTED}/json",
        f"/v1x43/containers/{LISTED}/json",
        f"/V1.43/containers/{LISTED}/json",
        f"/Containers/{LISTED}/json",
        f"/containers/json?/containers/{LISTED}/json",
        "/_ping/",
        "/_ping?x=1",
        f"/containers/{LISTED}/json?size=1",
        f"/containers/{LISTED}/json?",
        f"/containers/{LISTED}/logs?",
        f"/containers/{LISTED}/logs?follow=1",
        f"/containers/{LISTED}/logs?stdout=1&follow=true",
        f"/containers/{LISTED}/logs?stdout=1&follow=0&follow=1",
        f"/containers/{LISTED}/logs?stdout=1&%66ollow=1",
        f"/containers/{LISTED}/logs?stdout=1;follow=1",
        f"/containers/{LISTED}/logs?stdout=1&details=1",
        f"/containers/{LISTED}/logs?stdout=1&tail=%31",
    ],
)
def test_no_other_way_to_write_a_path_gets_through(filter_port, path: str) -> None:
    _refused(filter_port, "GET", path)


@pytest.mark.parametrize("query", ["", "x=1", "t=-1", "t=1000", "t=1&t=2", "t=1&signal=KILL", "signal=KILL", "t=%31", "t="])
def test_a_stop_takes_only_its_time(filter_port, engine, query: str) -> None:
    _refused(filter_port, "POST", f"/containers/{LISTED}/stop?{query}")
    _refused(filter_port, "POST", f"/containers/{LISTED}/start?{query}")
    assert _running(engine, LISTED)


def test_no_body_and_no_upgrade_gets_through(filter_port) -> None:
    start = f"/v1.43/containers/{LISTED}/start"
    _refused(filter_port, "POST", start, body='{"Binds": ["/:/host"]}')
    _refused(filter_port, "POST", start, headers={"Transfer-Encoding": "chunked"})
    _refused(filter_port, "POST", start, headers={"Connection": "Upgrade", "Upgrade": "tcp"})
    _refused(filter_port, "GET", f"/containers/{LISTED}/logs?stdout=1", headers={"Connection": "Upgrade", "Upgrade": "tcp"})


@pytest.mark.parametrize(
    "raw",
    [
        f"GET http://docker/containers/{OTHER}/json HTTP/1.1\r\nHost: docker\r\n\r\n",
        f"GET http://docker/containers/{LISTED}/json HTTP/1.1\r\nHost: docker\r\n\r\n",
        f"GET /containers/{LISTED}/json#x HTTP/1.1\r\nHost: docker\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: docker\r\n\r\n",
        "CONNECT docker:2375 HTTP/1.1\r\nHost: docker:2375\r\n\r\n",
        f"GET /_ping HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nGET /containers/{OTHER}/json",
        "GET /_ping HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /info HTTP/1.1\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_no_plain_request_gets_no_answer_from_docker(filter_port, raw: str) -> None:
    with socket.create_connection(("127.0.0.1", filter_port), timeout=30) as connection:
        connection.sendall(raw.encode())
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    statuses = [line for line in answer.split(b"\r\n") if line.startswith(b"HTTP/")]
    assert all(status.split()[1] in (b"400", b"403") for status in statuses), answer[:300]
    assert b"Api-Version" not in answer


def test_requests_through_one_connection_are_each_judged(filter_port) -> None:
    with requests.Session() as session:
        base = f"http://127.0.0.1:{filter_port}"
        assert session.get(f"{base}/_ping").status_code == 200
        assert session.get(f"{base}/containers/json").status_code == 403
        assert session.get(f"{base}/containers/{LISTED}/json").status_code == 200
        assert session.delete(f"{base}/containers/{LISTED}").status_code == 403


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({}, "FILTER_CONTAINERS must be set"),
        ({"FILTER_CONTAINERS": "shudl-kafka-1 a/b"}, "a/b is not a container's name"),
        ({"FILTER_CONTAINERS": "cafe"}, "could take cafe for the beginning of an id"),
        ({"FILTER_CONTAINERS": "shudl-kafka-1"}, "FILTER_SOCKET=/var/run/docker.sock is not a socket"),
    ],
)
def test_what_is_wrong_is_said_before_it_starts(engine, environment: dict[str, str], reason: str) -> None:
    mounts = {} if "socket" in reason else {_socket_file(): {"bind": "/var/run/docker.sock", "mode": "rw"}}
    options = {"user": "1000:1000", "group_add": [str(Path(_socket_file()).stat().st_gid)], "network_mode": "none"}
    container = engine.containers.run(
        HAPROXY, entrypoint=ENTRYPOINT, environment=environment, volumes=mounts, name=f"{PREFIX}-wrong", detach=True, **options
    )
    try:
        assert container.wait(timeout=60)["StatusCode"] == 64
        assert reason in container.logs().decode()
    finally:
        container.remove(force=True)
