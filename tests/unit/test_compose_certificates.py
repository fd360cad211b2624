"""``make certificates``: what it makes is trusted by Python, OpenSSL's rules and Java; what is not valid is said, by name."""

from __future__ import annotations

import http.server
import ipaddress
import os
import shutil
import socket
import ssl
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from include.platform.compose import __main__ as command
from include.platform.compose import certificates, pki
from include.platform.compose.model import Compose
from include.platform.compose.problems import ComposeError
from include.platform.settings import ROOT, settings
from tests import compose_folder
from tests.compose_folder import ME

NOW = datetime.now(UTC)
PAIRS = ("etcd1", "patroni1", "trino")
TRINO_NAMES = ["trino", "localhost", "127.0.0.1"]
Make = Callable[..., certificates.Made]


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys take time: all tests begin with copies of these."""
    docker = tmp_path_factory.mktemp("made") / "docker"
    with pytest.MonkeyPatch.context() as monkeypatch:
        compose_folder.run_services_as_me(monkeypatch)
        certificates.make(docker / "certificates", compose_folder.make(docker), ME)
    return docker


@pytest.fixture
def docker(made_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    compose_folder.run_services_as_me(monkeypatch)
    return Path(shutil.copytree(made_once, tmp_path / "docker"))


@pytest.fixture
def folder(docker: Path) -> Path:
    return docker / "certificates"


@pytest.fixture
def compose(docker: Path) -> Compose:
    return Compose.read(docker / "compose.yaml")


@pytest.fixture
def make(folder: Path, compose: Compose) -> Make:
    return lambda *renew, names=(), now=NOW: certificates.make(folder, compose, ME, names, renew, now)


@pytest.fixture
def problems(folder: Path, compose: Compose) -> Callable[..., list[str]]:
    """What is wrong, as text; the way out follows an arrow."""
    return lambda names=(), now=NOW: [str(problem) for problem in certificates.problems(folder, compose, names, now)[0]]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def changed(folder: Path, before: dict[str, bytes]) -> set[str]:
    return {name for name, data in contents(folder).items() if before.get(name) != data}


def certificate(folder: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / f"{name}.crt").read_bytes())


def authority(folder: Path) -> pki.Authority:
    return pki.Authority(load_pem_private_key((folder / "ca.key").read_bytes(), None), certificate(folder, "ca"))


def put(folder: Path, name: str, pair: tuple[RSAPrivateKey, x509.Certificate]) -> None:
    key, made = pair
    (folder / f"{name}.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / f"{name}.crt").write_bytes(made.public_bytes(Encoding.PEM))


# ── what is made ──


def test_a_pair_for_each_service_of_compose(folder: Path, problems: Callable[..., list[str]]) -> None:
    names = {f"{name}.{kind}" for name in ("ca", *PAIRS) for kind in ("crt", "key")}
    assert set(contents(folder)) == names | {"trust.crt", "truststore.p12"}
    assert problems() == []


def test_modes_keep_keys_from_others(folder: Path) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes["ca.key"] == 0o600 and modes["trino.key"] == 0o640
    assert modes["ca.crt"] == modes["trino.crt"] == modes["trust.crt"] == modes["truststore.p12"] == 0o644


def test_keys_are_what_every_service_reads(folder: Path) -> None:
    for name, bits in (("ca", 3072), ("trino", 2048)):
        data = (folder / f"{name}.key").read_bytes()
        assert data.startswith(b"-----BEGIN PRIVATE KEY-----") and load_pem_private_key(data, None).key_size == bits


def test_names_by_which_a_service_is_reached(folder: Path, compose: Compose) -> None:
    found = {name: pki.alternative_names(certificate(folder, name)) for name in PAIRS}
    local = {"localhost", "127.0.0.1"}
    assert found == {"etcd1": {"etcd1", *local}, "patroni1": {"patroni1", "haproxy", *local}, "trino": {"trino", *local}}
    outside = ["lake.example.org", "10.1.2.3"]
    assert certificates.names(compose, "trino", outside) == ["trino", "localhost", "127.0.0.1", *outside]
    assert certificates.names(compose, "patroni1", outside)[-2:] == outside, "HAProxy, which passes its TLS on, is published"
    assert certificates.names(compose, "etcd1", outside) == ["etcd1", "localhost", "127.0.0.1"]


def test_a_certificate_that_several_services_use_has_their_names(docker: Path) -> None:
    compose = Compose.read(ROOT / "docker" / "compose.yaml")
    names = certificates.names(compose, "airflow")
    assert {"airflow-api-server", "airflow-scheduler", "airflow-triggerer"} <= set(names)


def test_who_may_be_a_client(folder: Path) -> None:
    client = ExtendedKeyUsageOID.CLIENT_AUTH
    assert {name for name in PAIRS if client in pki.usages(certificate(folder, name))} == {"etcd1", "patroni1"}
    assert all(ExtendedKeyUsageOID.SERVER_AUTH in pki.usages(certificate(folder, name)) for name in PAIRS)
    assert set(Compose.read(ROOT / "docker" / "compose.yaml").certificates) >= certificates.CLIENTS


def test_how_long_they_are_valid(folder: Path) -> None:
    for name, days in (("ca", 3652), ("trino", 825)):
        found = certificate(folder, name)
        assert found.not_valid_before_utc <= datetime.now(UTC) - timedelta(minutes=59)
        assert 0 <= (NOW + timedelta(days=days, minutes=5) - found.not_valid_after_utc).total_seconds() < 900


# ── what trusts it ──


@contextmanager
def https(folder: Path, name: str, body: bytes, client_ca: bool = False) -> Iterator[int]:
    """A server with the certificate of ``name``; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key")
    if client_ca:
        context.load_verify_locations(folder / "ca.crt")
        context.verify_mode = ssl.CERT_REQUIRED
        context.maximum_version = ssl.TLSVersion.TLSv1_2  # with 1.3 the client's refusal is only seen when it reads
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.handle_error = lambda *_: None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def connect(port: int, context: ssl.SSLContext, host: str) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain, context.wrap_socket(plain, server_hostname=host):
        pass


@pytest.mark.parametrize("host", ["trino", "localhost", "127.0.0.1"])
def test_python_trusts_it_by_the_strict_rules(folder: Path, host: str) -> None:
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with https(folder, "trino", b"") as port:
        connect(port, context, host)
        with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
            connect(port, context, "etcd1")
        with pytest.raises(ssl.SSLCertVerificationError, match=r"unable to get local issuer|self-signed"):
            connect(port, ssl.create_default_context(), host)


def test_who_asks_for_clients_certificates_lets_in_those_for_clients_only(folder: Path) -> None:
    def client(name: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        context.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key")
        return context

    with https(folder, "etcd1", b"", client_ca=True) as port:
        connect(port, client("patroni1"), "etcd1")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            connect(port, client("trino"), "etcd1")


def _keytool(jre: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [settings.engines / jre / "bin" / "keytool", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("jre", ["jre21", "jre25"])
@pytest.mark.parametrize("password", [[], ["-storepass", "changeit"]], ids=["no password", "any password"])
def test_java_opens_the_truststore(folder: Path, jre: str, password: list[str]) -> None:
    done = _keytool(jre, "-list", "-storetype", "PKCS12", "-keystore", str(folder / "truststore.p12"), *password)
    assert done.returncode == 0 and "shudl-ca" in done.stdout and "trustedCertEntry" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("jre", ["jre21", "jre25"])
def test_java_trusts_it_with_no_more_than_the_settings_of_containers(folder: Path, jre: str) -> None:
    """keytool fetches a list of revoked certificates over HTTPS as any program in Java would."""
    ours = authority(folder)
    builder = x509.CertificateRevocationListBuilder().issuer_name(ours.certificate.subject)
    builder = builder.last_update(NOW).next_update(NOW + timedelta(days=1))
    revoked = builder.sign(ours.key, hashes.SHA256()).public_bytes(Encoding.DER)

    def fetch(port: int) -> subprocess.CompletedProcess[str]:
        trust = [f"-J-Djavax.net.ssl.trustStore={folder / 'truststore.p12'}", "-J-Djavax.net.ssl.trustStoreType=PKCS12"]
        return _keytool(jre, *trust, "-printcrl", "-file", f"https://localhost:{port}/")

    with https(folder, "trino", revoked) as port:
        done = fetch(port)
        assert done.returncode == 0 and "ShuDL authority" in done.stdout, done.stdout + done.stderr
        stranger = pki.new_authority(NOW).certificate
        (folder / "truststore.p12").write_bytes(pki.truststore(stranger))
        done = fetch(port)
        assert done.returncode != 0 and "PKIX path" in done.stdout + done.stderr


# ── what stays and what is renewed ──


def test_the_second_time_nothing_changes(folder: Path, make: Make) -> None:
    before = contents(folder)
    done = make()
    assert (done.made, done.renewed, done.kept, done.problems) == ([], [], list(PAIRS), []) and changed(folder, before) == set()
    assert make("1").renewed == [] and changed(folder, before) == set()


def test_what_is_missing_is_made_by_the_same_authority(folder: Path, make: Make) -> None:
    for name in ("trino.crt", "trino.key", "trust.crt", "truststore.p12"):
        (folder / name).unlink()
    before = contents(folder)
    assert make().made == ["trino", "trust.crt", "truststore.p12"]
    assert changed(folder, before) == {"trino.crt", "trino.key", "trust.crt", "truststore.p12"}


def test_authorities_of_external_services_are_trusted_beside_ours(
    folder: Path, make: Make, problems: Callable[..., list[str]]
) -> None:
    theirs = pki.new_authority(NOW).certificate.public_bytes(Encoding.PEM)
    (folder / "external-ca.crt").write_bytes(theirs)
    assert [line.split("\n")[0] for line in problems()] == [
        f"docker/certificates/{name} does not hold docker/certificates/ca.crt and docker/certificates/external-ca.crt"
        for name in ("trust.crt", "truststore.p12")
    ]
    before = contents(folder)
    assert make().made == ["trust.crt", "truststore.p12"] and changed(folder, before) == {"trust.crt", "truststore.p12"}
    assert (folder / "trust.crt").read_bytes() == (folder / "ca.crt").read_bytes() + theirs
    assert problems() == []
    (folder / "external-ca.crt").write_bytes((folder / "trino.crt").read_bytes())
    with pytest.raises(ComposeError, match=r"external-ca.crt: CN=trino.* is no authority"):
        make()
    (folder / "external-ca.crt").unlink()
    make()
    assert (folder / "trust.crt").read_bytes() == (folder / "ca.crt").read_bytes() and problems() == []


def test_what_is_named_is_renewed(folder: Path, make: Make) -> None:
    before = contents(folder)
    assert make("trino").renewed == ["trino"] and changed(folder, before) == {"trino.crt", "trino.key"}
    with pytest.raises(ComposeError, match=r"RENEW=kafka: no such certificate; give 1 .*, ca, or some of etcd1, patroni1, trino"):
        make("kafka", "trino")


def test_a_new_authority_only_by_name_and_with_everything_that_it_signs(
    folder: Path, make: Make, problems: Callable[..., list[str]]
) -> None:
    before = contents(folder)
    done = make("ca")
    assert done.renewed == ["ca", *PAIRS] and done.made == ["trust.crt", "truststore.p12"]
    assert changed(folder, before) == set(before) and problems() == []


@pytest.mark.parametrize("days", [-1, 0.5, 29])
def test_what_expires_is_said_and_renewed_when_told(
    folder: Path, make: Make, days: float, problems: Callable[..., list[str]]
) -> None:
    put(folder, "trino", pki.issue(authority(folder), "trino", TRINO_NAMES, False, NOW - timedelta(days=825 - days)))
    before = contents(folder)
    done = make()
    told = [str(problem) for problem in (done.problems if days < 0 else done.soon)]
    assert len(told) == 1 and "make certificates RENEW=trino" in told[0] and changed(folder, before) == set()
    assert ("docker/certificates/trino.crt expired on " if days < 0 else "docker/certificates/trino.crt expires on ") in told[0]
    assert bool(problems()) == (days < 0)
    assert make("1").renewed == ["trino"] and changed(folder, before) == {"trino.crt", "trino.key"}
    assert make().soon == [] and problems() == []


def test_a_public_name_that_is_lacking_is_said_and_added_when_told(
    folder: Path, make: Make, problems: Callable[..., list[str]]
) -> None:
    outside = ("lake.example.org", "10.1.2.3")
    before = contents(folder)
    done = make(names=outside)
    told = [problem.what for problem in done.problems]
    assert told == [f"docker/certificates/{name}.crt is not for lake.example.org, 10.1.2.3" for name in ("patroni1", "trino")]
    assert changed(folder, before) == set() and len(problems(outside)) == 2
    assert make("1", names=outside).renewed == ["patroni1", "trino"] and problems(outside) == []
    found = certificate(folder, "trino").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert ipaddress.ip_address("10.1.2.3") in found.get_values_for_type(x509.IPAddress)


# ── what is wrong ──


def test_swapped_keys(folder: Path, make: Make, problems: Callable[..., list[str]]) -> None:
    one, other = folder / "trino.key", folder / "etcd1.key"
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    told = problems()
    assert [line.splitlines()[0] for line in told] == [
        f"docker/certificates/{name}.key is not the key of docker/certificates/{name}.crt" for name in ("etcd1", "trino")
    ]
    assert make("1").renewed == ["etcd1", "trino"] and problems() == []


def test_another_authoritys_certificate(folder: Path, problems: Callable[..., list[str]]) -> None:
    put(folder, "trino", pki.issue(pki.new_authority(NOW), "trino", TRINO_NAMES, False, NOW))
    (told,) = problems()
    assert "docker/certificates/trino.crt is not signed by docker/certificates/ca.crt" in told and "RENEW=trino" in told


def test_a_certificate_that_is_no_clients(folder: Path, problems: Callable[..., list[str]]) -> None:
    put(folder, "etcd1", pki.issue(authority(folder), "etcd1", ["etcd1", "localhost", "127.0.0.1"], False, NOW))
    (told,) = problems()
    assert "docker/certificates/etcd1.crt is not for clients" in told


def test_a_clock_that_is_behind(problems: Callable[..., list[str]]) -> None:
    told = problems(now=NOW - timedelta(days=2))
    assert len(told) == 4 and all("is not valid before" in line and "set the clock" in line for line in told)


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("trino.crt", b"nonsense", "docker/certificates/trino.crt holds no PEM certificate"),
        ("trino.key", b"nonsense", "docker/certificates/trino.key holds no PEM key without a password"),
        ("trino.crt", b"", "docker/certificates/trino.crt is empty"),
        ("trino.key", None, "docker/certificates/trino.key is missing"),
        ("ca.crt", b"nonsense", "docker/certificates/ca.crt holds no PEM certificate"),
        ("ca.crt", None, "docker/certificates/ca.crt is missing"),
        ("trust.crt", b"nonsense", "docker/certificates/trust.crt does not hold docker/certificates/ca.crt"),
        ("truststore.p12", b"nonsense", "docker/certificates/truststore.p12 does not hold docker/certificates/ca.crt"),
        ("truststore.p12", None, "docker/certificates/truststore.p12 is missing"),
    ],
)
def test_damaged_files(folder: Path, file: str, content: bytes | None, told: str, problems: Callable[..., list[str]]) -> None:
    (folder / file).unlink() if content is None else (folder / file).write_bytes(content)
    (problem,) = problems()
    assert problem.startswith(told) and "\n    → " in problem and "make certificates" in problem


@pytest.mark.parametrize(
    ("form", "encryption", "told"),
    [
        (PrivateFormat.TraditionalOpenSSL, NoEncryption(), "is no PKCS#8 key"),
        (PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"), "holds no PEM key without a password"),
    ],
)
def test_keys_in_forms_that_not_every_service_reads(
    folder: Path, form: PrivateFormat, encryption, told: str, problems: Callable[..., list[str]]
) -> None:
    key = load_pem_private_key((folder / "trino.key").read_bytes(), None)
    (folder / "trino.key").write_bytes(key.private_bytes(Encoding.PEM, form, encryption))
    (problem,) = problems()
    assert problem.startswith(f"docker/certificates/trino.key {told}")


def test_keys_that_others_or_no_service_can_read(folder: Path, make: Make, problems: Callable[..., list[str]]) -> None:
    (folder / "ca.key").chmod(0o644)
    (folder / "trino.key").chmod(0o040)
    told = problems()
    assert "docker/certificates/ca.key can be read by others (mode 0644)" in told[0]
    assert "docker/certificates/trino.key cannot be read" in told[1]
    before = contents(folder) if os.getuid() == 0 else None
    assert make().problems == [] and problems() == []
    assert before is None or changed(folder, before) == set()


@pytest.mark.parametrize("gone", [("ca.key",), ("ca.crt",), ("ca.crt", "ca.key")])
def test_an_authority_that_is_gone_is_not_replaced_silently(folder: Path, make: Make, gone: tuple[str, ...]) -> None:
    for name in (*gone, "trino.crt", "trino.key"):
        (folder / name).unlink()
    before = contents(folder)
    with pytest.raises(ComposeError, match=r"docker/certificates/ca\.(crt|key) cannot be read.*\n.*backup.*RENEW=ca"):
        make()
    assert contents(folder) == before


def test_the_authoritys_key_may_be_kept_elsewhere(folder: Path, make: Make, problems: Callable[..., list[str]]) -> None:
    (folder / "ca.key").unlink()
    assert make().problems == [] and problems() == []


def test_another_authoritys_key_signs_nothing(folder: Path, make: Make) -> None:
    (folder / "ca.key").write_bytes((folder / "trino.key").read_bytes())
    with pytest.raises(ComposeError, match=r"ca\.key is not the key of docker/certificates/ca\.crt"):
        make("trino")


def test_an_expired_authority_is_said_and_signs_nothing(folder: Path, make: Make, problems: Callable[..., list[str]]) -> None:
    later = NOW + timedelta(days=3700)
    assert any("docker/certificates/ca.crt expired on" in line and "RENEW=ca" in line for line in problems(now=later))
    before = contents(folder)
    with pytest.raises(ComposeError, match=r"ca\.crt expired on"):
        make("1", now=later)
    assert contents(folder) == before
    make("ca", now=later)
    assert problems(now=later) == []


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("ca.key: {file: ./certificates/ca.key}", r"certificates/ca\.key is mounted; .* never the authority's key"),
        ("a.crt: {file: ./certificates/a.crt}", r"certificates/a\.crt has no a\.key beside it"),
        ("b: {file: ./certificates/b.pem}", r"certificates/b\.pem is mounted"),
    ],
)
def test_compose_may_not_mount_what_is_no_pair(docker: Path, entry: str, told: str) -> None:
    file = docker / "compose.yaml"
    file.write_text(f"{file.read_text()}  {entry}\n")
    with pytest.raises(ComposeError, match=told):
        Compose.read(file)


def test_the_command_tells_what_it_made_and_what_to_restart(docker: Path, folder: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.rmtree(folder)
    arguments = ["--folder", str(docker), "--user", f"{ME.uid}:{ME.gid}", "certificates"]
    assert command.main(arguments) == 0
    assert "made: ca etcd1 patroni1 trino trust.crt truststore.p12" in capsys.readouterr().out
    assert command.main([*arguments, "trino"]) == 0
    assert "renewed: trino\n" in (told := capsys.readouterr().out) and "compose restart trino\n" in told
    (docker / ".env").write_text("SHUDL_PUBLIC_NAMES=lake.example.org\n")
    assert command.main(arguments) == 1
    told = capsys.readouterr().err
    assert "FAIL  docker/certificates/trino.crt is not for lake.example.org\n    → make certificates RENEW=trino" in told
