"""Keys and certificates in memory, in the forms that every service reads: RSA, PEM, PKCS#8, PKCS#12."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from include.platform.compose.files import shown
from include.platform.compose.problems import ComposeError

AUTHORITY_BITS, SERVICE_BITS = 3072, 2048
AUTHORITY_DAYS, SERVICE_DAYS = 3652, 825
CLOCK_SKEW = timedelta(hours=1)
"""How far certificates reach into the past, for machines whose clocks are behind."""


@dataclass(frozen=True)
class Authority:
    """``key`` is None where nothing is to be signed."""

    key: rsa.RSAPrivateKey | None
    certificate: x509.Certificate


def read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise ComposeError(f"{shown(path)} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ComposeError(f"{shown(path)} holds no PEM certificate") from None


def read_certificates(path: Path) -> list[x509.Certificate]:
    """One or several."""
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise ComposeError(f"{shown(path)} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ComposeError(f"{shown(path)} holds no PEM certificates") from None


def key_pem(key: rsa.RSAPrivateKey) -> bytes:
    """PKCS#8, without a password."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def read_key(path: Path) -> rsa.RSAPrivateKey:
    try:
        data = path.read_bytes()
        key = load_pem_private_key(data, None)
    except OSError as error:
        raise ComposeError(f"{shown(path)} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ComposeError(f"{shown(path)} holds no PEM key without a password") from None
    if not data.lstrip().startswith(b"-----BEGIN PRIVATE KEY-----"):
        raise ComposeError(f"{shown(path)} is no PKCS#8 key (-----BEGIN PRIVATE KEY-----), which all services can read")
    return key


def public(key: object) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def alternative_names(certificate: x509.Certificate) -> set[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))}


def usages(certificate: x509.Certificate) -> set[x509.ObjectIdentifier]:
    try:
        return set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return set()


def _subject(common_name: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "ShuDL"), x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    )


def _key_usage(sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=not sign,
        key_cert_sign=sign,
        crl_sign=sign,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(subject: x509.Name, issuer: x509.Name, key: rsa.RSAPrivateKey, days: int, now: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def new_authority(now: datetime) -> Authority:
    """An authority of a new name, so that nothing takes its predecessor's certificates for its own."""
    key = rsa.generate_private_key(65537, AUTHORITY_BITS)
    subject = _subject(f"ShuDL authority {now:%Y-%m-%d %H:%M:%S}")
    certificate = (
        _builder(subject, subject, key, AUTHORITY_DAYS, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(sign=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(key, certificate)


def issue(
    authority: Authority, name: str, names: list[str], client: bool, now: datetime
) -> tuple[rsa.RSAPrivateKey, x509.Certificate]:
    """A new key and its certificate for the host ``names``, for servers; with ``client`` for clients as well."""
    key = rsa.generate_private_key(65537, SERVICE_BITS)
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, *([ExtendedKeyUsageOID.CLIENT_AUTH] if client else [])]
    certificate = (
        _builder(_subject(name), authority.certificate.subject, key, SERVICE_DAYS, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(sign=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName(list(map(_general_name, names))), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return key, certificate


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def truststore(*certificates: x509.Certificate) -> bytes:
    """PKCS#12 with ``certificates`` as Java's trusted ones, neither encrypted nor sealed: it opens with any password or none."""
    named = [(b"shudl-ca" if number == 0 else b"external-%d" % number, one) for number, one in enumerate(certificates)]
    sealed = pkcs12.serialize_java_truststore([pkcs12.PKCS12Certificate(one, name) for name, one in named], NoEncryption())
    body = _der_body(sealed)
    version = body[: len(body) - len(_after(body))]
    content = body[len(version) : len(body) - len(_after(_after(body)))]
    return b"\x30" + _der_length(len(version) + len(content)) + version + content


def _der_header(data: bytes) -> tuple[int, int]:
    """Length of the header of the first element in ``data``, and of its body."""
    if data[1] < 0x80:
        return 2, data[1]
    count = data[1] & 0x7F
    return 2 + count, int.from_bytes(data[2 : 2 + count])


def _der_body(data: bytes) -> bytes:
    header, length = _der_header(data)
    return data[header : header + length]


def _after(data: bytes) -> bytes:
    return data[sum(_der_header(data)) :]


def _der_length(length: int) -> bytes:
    if length < 0x80:
        return bytes([length])
    digits = length.to_bytes((length.bit_length() + 7) // 8)
    return bytes([0x80 | len(digits)]) + digits
