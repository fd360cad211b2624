"""``make certificates``: an authority of the platform's own, and a certificate for every service that speaks TLS.

``compose.yaml`` names the services (see :mod:`include.platform.compose.model`). What is there and valid stays. What is not
valid, or soon no longer, is said, and renewed only when told (``RENEW=1``, or names); the authority only by name
(``RENEW=ca``), because everything that it signed is made anew with it.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from include.platform.compose.files import PRIVATE, PUBLIC, SERVICE_ID, SHARED, User, missing, set_right, shown, unusable, write
from include.platform.compose.model import CA, TRUST, TRUSTSTORE, Compose
from include.platform.compose.pki import (
    Authority,
    alternative_names,
    is_authority,
    issue,
    key_pem,
    new_authority,
    public,
    read_certificate,
    read_certificates,
    read_key,
    truststore,
    usages,
)
from include.platform.compose.problems import ComposeError, Problem

SOON_DAYS = 30

EXTRA_NAMES = {"patroni1": ("haproxy",), "patroni2": ("haproxy",)}
"""Names beside its own by which others reach a service: HAProxy passes PostgreSQL's TLS through."""

CLIENTS = frozenset({"airflow", "etcd1", "etcd2", "etcd3", "patroni1", "patroni2", "fencer"})
"""Whose certificate is good for clients of etcd as well: its peers, Patroni, the fencer, Airflow's checks. It lets in whoever has
one."""

LOCAL_NAMES = ("localhost", "127.0.0.1")
EXTERNAL_CA = "external-ca.crt"
"""Who has external services puts the authorities that signed their certificates there, one or several."""
RENEW_CA = "make certificates RENEW=ca, which makes all certificates anew"
RESTORE = f"bring ca.crt and ca.key back from a backup, or {RENEW_CA}"


@dataclass
class Made:
    """Names. ``soon``: what is valid for less than 30 days more; ``problems``: what is there and not valid."""

    made: list[str] = field(default_factory=list)
    renewed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    soon: list[Problem] = field(default_factory=list)


def names(compose: Compose, service: str, public_names: Sequence[str] = ()) -> list[str]:
    """Host names and addresses in the certificate of ``service``: it and those that use it as well; the public names only
    where one of them is published.
    """
    own = (service, *compose.users(f"./certificates/{service}.key"), *EXTRA_NAMES.get(service, ()))
    outside = public_names if any(map(compose.published, own)) else ()
    return list(dict.fromkeys((*own, *LOCAL_NAMES, *outside)))


def make(
    folder: Path,
    compose: Compose,
    user: User,
    public_names: Sequence[str] = (),
    renew: Iterable[str] = (),
    now: datetime | None = None,
) -> Made:
    """Make what is missing in ``folder`` and renew what ``renew`` names; in it, ``1`` is every service whose turn it is.

    Raises :class:`ComposeError`, before anything is written, for an unknown name, and when something is to be signed and the
    authority cannot sign.
    """
    now = now or datetime.now(UTC)
    told = set(renew)
    if unknown := sorted(told - {"1", CA, *compose.certificates}):
        raise ComposeError(
            f"RENEW={' '.join(unknown)}: no such certificate; give 1 (all whose turn it is), ca, or some of "
            f"{', '.join(compose.certificates)}"
        )
    folder.mkdir(mode=0o750, exist_ok=True)
    done = Made()
    old = {name for name in compose.certificates if any(path.exists() for path in _pair(folder, name))}
    for name in (CA, *old):
        _set_right(folder, name, user)
    exists = any(path.exists() for path in _pair(folder, CA))
    if CA in told or not (exists or old):
        authority = new_authority(now)
        _store(folder, CA, authority.certificate, authority.key, user)
        (done.renewed if exists else done.made).append(CA)
        told |= old
    else:
        authority = _authority(folder)
    due = []
    for name in compose.certificates:
        wanted = names(compose, name, public_names)
        wrong, soon = _examine(folder, name, wanted, authority.certificate, now)
        if name not in old or name in told or ("1" in told and (wrong or soon)):
            due.append((name, wanted))
            continue
        done.problems += wrong
        done.soon += soon
        if not wrong:
            done.kept.append(name)
    if due:
        signer = _signer(folder, authority, now)
    for name, wanted in due:
        key, certificate = issue(signer, name, wanted, name in CLIENTS, now)
        _store(folder, name, certificate, key, user)
        (done.renewed if name in old else done.made).append(name)
    for name, data in _trusted(folder, authority.certificate).items():
        store = folder / name
        if not store.is_file() or store.read_bytes() != data:
            write(store, data, PUBLIC, SERVICE_ID, user.gid, replace=True)
            done.made.append(name)
        set_right(store, PUBLIC, SERVICE_ID, user.gid)
    wrong, soon = _examine_authority(folder, authority.certificate, now)
    done.problems += wrong
    done.soon += soon
    return done


def problems(
    folder: Path, compose: Compose, public_names: Sequence[str] = (), now: datetime | None = None
) -> tuple[list[Problem], list[Problem]]:
    """What keeps services from trusting each other, and what will within 30 days. Changes nothing."""
    now = now or datetime.now(UTC)
    if problem := unusable(folder / "ca.crt", "certificates"):
        return [problem], []
    try:
        authority = read_certificate(folder / "ca.crt")
    except ComposeError as error:
        return [Problem(str(error), RESTORE)], []
    found, soon = _examine_authority(folder, authority, now)
    absent = [name for name in compose.certificates if not any(path.exists() for path in _pair(folder, name))]
    found += missing([folder / f"{name}.crt" for name in absent], "certificates")
    for name in compose.certificates:
        if name in absent:
            continue
        wrong, soon_wrong = _examine(folder, name, names(compose, name, public_names), authority, now)
        found += wrong
        soon += soon_wrong
    try:
        trusted = _trusted(folder, authority)
    except ComposeError as error:
        return [*found, Problem(str(error), "correct it, or remove it")], soon
    for name, data in trusted.items():
        if problem := unusable(folder / name, "certificates"):
            found.append(problem)
        elif (folder / name).read_bytes() != data:
            others = f" and {shown(folder / EXTERNAL_CA)}" if (folder / EXTERNAL_CA).exists() else ""
            found.append(Problem(f"{shown(folder / name)} does not hold {shown(folder / 'ca.crt')}{others}", "make certificates"))
    return found, soon


def _trusted(folder: Path, authority: x509.Certificate) -> dict[str, bytes]:
    """The files by which clients trust the platform's authority, and those in :data:`EXTERNAL_CA`. Raises
    :class:`ComposeError` for what is no authority's certificate.
    """
    path = folder / EXTERNAL_CA
    known = [authority, *(read_certificates(path) if path.exists() else [])]
    for certificate in known[1:]:
        if not is_authority(certificate):
            raise ComposeError(f"{shown(path)}: {certificate.subject.rfc4514_string()} is no authority")
    return {TRUST: b"".join(one.public_bytes(Encoding.PEM) for one in known), TRUSTSTORE: truststore(*known)}


def _pair(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.crt", folder / f"{name}.key"


def _set_right(folder: Path, name: str, user: User) -> None:
    """Owner and mode of the files that are there, as :func:`_store` gives them."""
    certificate_file, key_file = _pair(folder, name)
    for path, mode, uid in ((certificate_file, PUBLIC, SERVICE_ID), (key_file, *_key_access(name, user))):
        if path.is_file() and not path.is_symlink():
            set_right(path, mode, uid, user.gid)


def _key_access(name: str, user: User) -> tuple[int, int]:
    """Mode and owner of a key: no container is to read the authority's."""
    return (PRIVATE, user.uid) if name == CA else (SHARED, SERVICE_ID)


def _store(folder: Path, name: str, certificate: x509.Certificate, key: rsa.RSAPrivateKey, user: User) -> None:
    """The key first: an interruption between the two leaves a pair that is named, never one that seems right."""
    certificate_file, key_file = _pair(folder, name)
    mode, uid = _key_access(name, user)
    write(key_file, key_pem(key), mode, uid, user.gid, replace=True)
    write(certificate_file, certificate.public_bytes(Encoding.PEM), PUBLIC, SERVICE_ID, user.gid, replace=True)


def _authority(folder: Path) -> Authority:
    """The authority as it is, without its key: that may be kept elsewhere while nothing is signed."""
    try:
        return Authority(None, read_certificate(folder / "ca.crt"))
    except ComposeError as error:
        raise ComposeError(str(Problem(str(error), RESTORE))) from None


def _signer(folder: Path, authority: Authority, now: datetime) -> Authority:
    """The authority with its key. Raises :class:`ComposeError` when it cannot sign."""
    if authority.key:
        return authority
    certificate_file, key_file = _pair(folder, CA)
    try:
        key = read_key(key_file)
    except ComposeError as error:
        raise ComposeError(str(Problem(str(error), RESTORE))) from None
    if public(key.public_key()) != public(authority.certificate.public_key()):
        raise ComposeError(str(Problem(f"{shown(key_file)} is not the key of {shown(certificate_file)}", RESTORE)))
    if wrong := _out_of_time(certificate_file, authority.certificate, RENEW_CA, now):
        raise ComposeError("\n".join(map(str, wrong)))
    return Authority(key, authority.certificate)


def _out_of_time(path: Path, certificate: x509.Certificate, way_out: str, now: datetime) -> list[Problem]:
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > last:
        return [Problem(f"{shown(path)} expired on {last:%Y-%m-%d %H:%M} UTC", way_out)]
    if now < first:
        clock = f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC"
        return [Problem(f"{shown(path)} is not valid before {first:%Y-%m-%d %H:%M} UTC; {clock}", f"set the clock, or {way_out}")]
    return []


def _soon(path: Path, certificate: x509.Certificate, way_out: str, now: datetime) -> list[Problem]:
    last = certificate.not_valid_after_utc
    if now < last < now + timedelta(days=SOON_DAYS):
        return [Problem(f"{shown(path)} expires on {last:%Y-%m-%d}, in {(last - now).days} days", way_out)]
    return []


def _examine_authority(folder: Path, authority: x509.Certificate, now: datetime) -> tuple[list[Problem], list[Problem]]:
    certificate_file, key_file = _pair(folder, CA)
    found = _out_of_time(certificate_file, authority, RENEW_CA, now)
    if not is_authority(authority):
        found.append(Problem(f"{shown(certificate_file)} is no authority's certificate", RESTORE))
    if problem := unusable(certificate_file, "certificates"):
        found.append(problem)
    if key_file.exists() and key_file.stat().st_mode & 0o077:
        mode = f"{stat.S_IMODE(key_file.stat().st_mode):04o}"
        found.append(Problem(f"{shown(key_file)} can be read by others (mode {mode})", "make certificates"))
    return found, _soon(certificate_file, authority, RENEW_CA, now)


def _examine(
    folder: Path, name: str, wanted: list[str], authority: x509.Certificate, now: datetime
) -> tuple[list[Problem], list[Problem]]:
    """Everything for which a service cannot use its pair or others do not trust it; and what will be so soon."""
    certificate_file, key_file = _pair(folder, name)
    way_out = f"make certificates RENEW={name}"
    absent = [path for path in (certificate_file, key_file) if not (path.exists() or path.is_symlink())]
    if len(absent) == 1:
        return [Problem(f"{shown(absent[0])} is missing", way_out)], []
    if found := [problem for path in (certificate_file, key_file) if (problem := unusable(path, "certificates"))]:
        return found, []
    found, key, certificate = [], None, None
    try:
        key = read_key(key_file)
    except ComposeError as error:
        found.append(Problem(str(error), way_out))
    try:
        certificate = read_certificate(certificate_file)
    except ComposeError as error:
        return [*found, Problem(str(error), way_out)], []
    if key and public(key.public_key()) != public(certificate.public_key()):
        found.append(Problem(f"{shown(key_file)} is not the key of {shown(certificate_file)}", way_out))
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        found.append(Problem(f"{shown(certificate_file)} is not signed by {shown(folder / 'ca.crt')}", way_out))
    found += _out_of_time(certificate_file, certificate, way_out, now)
    if lacking := [host for host in wanted if host not in alternative_names(certificate)]:
        found.append(Problem(f"{shown(certificate_file)} is not for {', '.join(lacking)}", way_out))
    if name in CLIENTS and ExtendedKeyUsageOID.CLIENT_AUTH not in usages(certificate):
        found.append(Problem(f"{shown(certificate_file)} is not for clients, as etcd asks for", way_out))
    return found, [] if found else _soon(certificate_file, certificate, way_out, now)
