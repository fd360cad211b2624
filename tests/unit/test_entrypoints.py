"""Every entrypoint refuses to start without its variables, naming the one that is missing; what lib.sh gives to all of them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from include.platform.catalog import CONTROL_PLANE, SERVICES
from include.platform.environment import service_environment
from include.platform.settings import ROOT

ENTRYPOINTS = sorted((ROOT / "docker" / "services").glob("*/entrypoint.sh"))
ALL = (*CONTROL_PLANE, *SERVICES)


def _run(entrypoint: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(entrypoint)], env={"PATH": os.environ["PATH"], **env}, capture_output=True, text=True, timeout=20
    )


def test_every_service_has_an_entrypoint_and_every_entrypoint_a_service() -> None:
    wanted = {service.entrypoint for service in ALL}
    only_docker = set(re.findall(r"/docker/services/([^/]+)/entrypoint\.sh", (ROOT / "docker" / "compose.yaml").read_text()))
    only_docker |= {path.parent.name for path in ENTRYPOINTS if (path.parent / "Dockerfile").exists()}
    found = {path.parent.name for path in ENTRYPOINTS}
    assert wanted <= found and found <= wanted | only_docker


@pytest.mark.parametrize("service", ALL, ids=lambda service: service.name)
def test_each_needed_variable_is_named_when_missing(service, tmp_path: Path) -> None:
    entrypoint = ROOT / "docker" / "services" / service.entrypoint / "entrypoint.sh"
    env = service_environment(service.name)
    text = entrypoint.read_text().replace("\\\n", " ")
    needed = [name for line in re.findall(r"^need (.*)$", text, re.M) for name in re.findall(r"\b[A-Z][A-Z0-9_]+\b", line)]
    assert needed and set(needed) <= set(env), f"not given by service_environment: {set(needed) - set(env)}"
    for name in needed:
        done = _run(entrypoint, {key: value for key, value in env.items() if key != name})
        assert done.returncode == 64 and f"{name} must be set" in done.stderr, (name, done.stderr)


@pytest.mark.parametrize("service", ALL, ids=lambda service: service.name)
def test_a_secret_that_cannot_be_read_is_named(service) -> None:
    entrypoint = ROOT / "docker" / "services" / service.entrypoint / "entrypoint.sh"
    env = service_environment(service.name)
    wanted = [
        name
        for line in re.findall(r"^secret (.*)$", entrypoint.read_text(), re.M)
        for name in re.findall(r"\b[A-Z][A-Z0-9_]+\b", line)
    ]
    for name in wanted:
        done = _run(entrypoint, {**env, f"{name}_FILE": "/nonexistent"})
        assert done.returncode == 64 and f"{name}_FILE=/nonexistent cannot be read" in done.stderr, (name, done.stderr)


def _sourced(script: str, tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs ``script`` as an entrypoint called ``thing``."""
    entrypoint = tmp_path / "thing" / "entrypoint.sh"
    entrypoint.parent.mkdir()
    entrypoint.write_text(f"source {ROOT}/docker/services/common/lib.sh\n{script}\n")
    return _run(entrypoint, env)


def _rendered(template: str, tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "template").write_text(template)
    return _sourced(f"render {tmp_path}/template {tmp_path}/made/file", tmp_path, **env)


@pytest.mark.parametrize("value", ["", "a&b", "\\1 \\& \\", "${OTHER} $$ $", "'\" `id` $(id) %s *", "two\nlines\n", "é/}{"])
def test_render_takes_any_value(value: str, tmp_path: Path) -> None:
    done = _rendered("a=${VALUE};b=${VALUE}\n\n", tmp_path, VALUE=value)
    made = tmp_path / "made" / "file"
    assert not done.returncode, done.stderr
    assert made.read_text() == f"a={value};b={value}\n\n"
    assert made.stat().st_mode & 0o777 == 0o600 and list(made.parent.iterdir()) == [made]


def test_render_leaves_a_dollar_where_there_are_two(tmp_path: Path) -> None:
    done = _rendered("$${ENV:KEY} $$$$ ${VALUE}$$", tmp_path, VALUE="$$v")
    assert not done.returncode, done.stderr
    assert (tmp_path / "made" / "file").read_text() == "${ENV:KEY} $$ $$v$"


@pytest.mark.parametrize("template", ["${MISSING}", "cost: $5", "$VALUE", "${value}", "${VALUE", "$"])
def test_render_refuses_what_it_cannot_replace(template: str, tmp_path: Path) -> None:
    done = _rendered(f"first\n{template}\n", tmp_path, VALUE="v")
    assert done.returncode == 64 and f"{tmp_path}/template" in done.stderr, done.stderr
    assert not (tmp_path / "made").exists()
    if template == "${MISSING}":
        assert "thing: MISSING must be set" in done.stderr


def test_clients_trust_the_platform_s_authority(tmp_path: Path) -> None:
    for name in ("ca", "store"):
        (tmp_path / name).write_text("x")
    files = {"TLS_CA_FILE": f"{tmp_path}/ca", "TLS_TRUSTSTORE_FILE": f"{tmp_path}/store"}
    done = _sourced("tls && echo serves; env", tmp_path, **files, JAVA_TOOL_OPTIONS="-Da=b")
    env = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    assert "serves" not in done.stdout
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        assert env[name] == files["TLS_CA_FILE"]
    trusts = f"-Djavax.net.ssl.trustStore={files['TLS_TRUSTSTORE_FILE']} -Djavax.net.ssl.trustStoreType=PKCS12"
    assert env["JAVA_TOOL_OPTIONS"] == f"-Da=b {trusts}"


def test_tls_is_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "cert").write_text("x")
    done = _sourced("tls", tmp_path, TLS_CERT_FILE=f"{tmp_path}/cert", TLS_KEY_FILE=f"{tmp_path}/cert")
    assert done.returncode == 64 and "TLS_CA_FILE must be set" in done.stderr
    done = _run(tmp_path / "thing" / "entrypoint.sh", {"TLS_CA_FILE": "/nonexistent"})
    assert done.returncode == 64 and "TLS_CA_FILE=/nonexistent cannot be read" in done.stderr
