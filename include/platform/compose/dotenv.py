"""``docker/.env`` and what may stand in it: the names and defaults of ``docker/.env.example``, the values of :data:`RULES`.

What is set in the shell goes before the file, as Compose has it. Compose works without the file: every setting has a default.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from include.platform.compose.problems import ComposeError, Problem
from include.platform.settings import external_pairs

LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)")
QUOTED = re.compile(r"(['\"])(.*?)\1\s*(?:#.*)?")
HOST_NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
UNITS = {"k": 2**10, "m": 2**20, "g": 2**30}


def size(text: str) -> int:
    """Bytes of ``640m`` or ``2g``. Raises ValueError."""
    if not re.fullmatch(r"[1-9][0-9]*[kmgKMG]", text):
        raise ValueError(text)
    return int(text[:-1]) * UNITS[text[-1].lower()]


def host_names(text: str) -> list[str]:
    """The names and addresses of ``SHUDL_PUBLIC_NAMES``, separated by spaces or commas. Raises ValueError naming a bad one."""
    found = text.replace(",", " ").split()
    for name in found:
        if not _is_address(name) and (not HOST_NAME.fullmatch(name) or name.replace(".", "").isdigit()):
            raise ValueError(name)
    return found


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _parses(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def test(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return test


def _matches(pattern: str) -> Callable[[str], bool]:
    return lambda text: re.fullmatch(pattern, text) is not None


@dataclass(frozen=True)
class Rule:
    """``names`` is a pattern of settings, ``must`` completes "must be …", ``test`` tells good values, ``empty`` is one."""

    names: str
    must: str
    test: Callable[[str], bool]
    empty: bool = False


RULES = (
    Rule("[A-Z0-9_]+_PUBLISHED_PORT", "a port: a number from 1 to 65535", lambda v: v.isdecimal() and 1 <= int(v) <= 65535),
    Rule("SHUDL_BIND", "an IP address of this machine, such as 127.0.0.1 or 0.0.0.0", _is_address),
    Rule("SHUDL_PUBLIC_NAMES", "host names or IP addresses, separated by spaces", _parses(host_names), empty=True),
    Rule(
        "SHUDL_EXTERNAL",
        "service=connection, separated by spaces, such as kafka=company_kafka",
        _parses(external_pairs),
        empty=True,
    ),
    Rule(
        "KAFKA_BOOTSTRAP",
        "host:port of brokers, separated by commas",
        _matches(r"[^\s,:]+:[0-9]{1,5}(,[^\s,:]+:[0-9]{1,5})*"),
        empty=True,
    ),
    Rule("KAFKA_SASL_MECHANISM", "SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN", _matches("SCRAM-SHA-(256|512)|PLAIN")),
    Rule("KAFKA_(CONNECT|FLINK)_USER", "a name without spaces and quotes", _matches(r"[^\s\"\\\\]+")),
    Rule("LAKE_(CATALOG_URI|S3_ENDPOINT)", "an address that begins with https:// or http://", _matches(r"https?://[^\s/]+\S*")),
    Rule("LAKE_S3_REGION", "the name of a region, such as us-east-1", _matches("[a-z0-9-]+")),
    Rule("LAKE_BUCKET", "the name of a bucket", _matches("[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")),
    Rule("POSTGRES_ADDRESS", "host:port of PostgreSQL", _matches(r"[^\s:]+:[0-9]{1,5}")),
    Rule("TRINO_QUERY_MEMORY|POSTGRES_SHARED_BUFFERS", "an amount such as 600MB or 2GB", _matches("[1-9][0-9]*(kB|MB|GB)")),
    Rule("[A-Z0-9_]+_(HEAP|MEMORY)", "an amount of memory such as 640m or 2g", _parses(size)),
    Rule("[A-Z0-9_]+_(CORES|SLOTS|HOURS|DAYS)", "a number from 1", _matches("[1-9][0-9]{0,5}")),
    Rule("[A-Z0-9_]+_LIMIT_S", "a number of seconds; 0: without limit", _matches("0|[1-9][0-9]{0,6}")),
    Rule(
        "[A-Z0-9_]+_IMAGE",
        "an image with its tag, such as clickhouse/clickhouse-server:25.8",
        _matches(r"[a-z0-9][\w./:-]*:[\w.@:-]+"),
    ),
    Rule("VERSION", "a tag of images", _matches(r"\w[\w.-]{0,127}"), empty=True),
    Rule("COMPOSE_PROFILES", "names of profiles, separated by commas", _matches(r"[\w.-]+(,[\w.-]+)*"), empty=True),
    Rule("DOCKER_SOCKET", "the absolute path of Docker's socket", _matches("/.+"), empty=True),
    Rule("DOCKER_GID", "the number of the socket's group", _matches("[0-9]{1,10}"), empty=True),
    Rule("DOCKER_CONTAINERS_DIR", "the absolute path of the folder of containers' logs", _matches("/.+")),
    Rule("KEYCLOAK_URL", "an address such as https://host:8543, with nothing after the port", _matches(r"https://[^\s/]+")),
    Rule("GRAFANA_URL", "an address that begins with https://", _matches(r"https://[^\s/]+\S*")),
    Rule("SHUDL_PAGES", "1, or empty", _matches("1"), empty=True),
    Rule("PROMETHEUS_RETENTION", "a time such as 15d or 12h", _matches("[1-9][0-9]*(h|d|w|y)")),
    Rule("PROMETHEUS_RETENTION_SIZE", "an amount such as 4GB", _matches("[1-9][0-9]*(MB|GB|TB)")),
    Rule(
        "ALERT_EMAIL_(TO|FROM)",
        "mail addresses, separated by commas",
        _matches(r"[^\s@]+@[^\s@,]+(,\s*[^\s@]+@[^\s@,]+)*"),
        empty=True,
    ),
    Rule("ALERT_SMTP_HOST", "host:port of a mail server", _matches(r"[^\s:]+:[0-9]{1,5}"), empty=True),
    Rule("ALERT_SMTP_USER", "a name without spaces", _matches(r"\S+"), empty=True),
    Rule("ALERT_SMTP_TLS", "true or false", _matches("true|false")),
    Rule(
        "ALERT_WEBHOOK_URL|CONNECTOR_(INDEX|PROXY)",
        "an address that begins with http:// or https://",
        _matches(r"https?://[^\s/]+\S*"),
        empty=True,
    ),
    Rule("CONNECTOR_CA_FILE", "the absolute path of a file", _matches("/.+")),
)


def rule(name: str) -> Rule | None:
    return next((rule for rule in RULES if re.fullmatch(rule.names, name)), None)


def parse(text: str) -> Iterator[tuple[int, str, str | None]]:
    """Number, name and value of each line that is neither empty nor a comment; value None where it is no ``NAME=value``."""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if not match:
            yield number, line.strip(), None
            continue
        value = match[2].strip()
        quoted = QUOTED.fullmatch(value)
        yield number, match[1], quoted[2] if quoted else re.split(r"(?:^|\s)#", value)[0].strip()


def read(path: Path) -> dict[str, str]:
    """The settings in ``path``; empty when there is no such file. Raises :class:`ComposeError` when it cannot be read."""
    try:
        return {name: value for _, name, value in parse(path.read_text()) if value is not None}
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ComposeError(f"docker/{path.name} cannot be read: {error}") from None


def effective(folder: Path, shell: Mapping[str, str]) -> dict[str, str]:
    """Every setting as Compose takes it: from ``shell``, else ``.env``, else its default."""
    defaults = read(folder / ".env.example")
    return {**defaults, **read(folder / ".env"), **{name: value for name, value in shell.items() if name in defaults}}


def chosen_profiles(settings: Mapping[str, str]) -> set[str]:
    return {name for name in settings.get("COMPOSE_PROFILES", "").split(",") if name}


def problems(folder: Path, shell: Mapping[str, str]) -> list[Problem]:
    """Settings that are unknown, missing, set twice or cannot be right. Without ``.env``, only those of the shell."""
    defaults = read(folder / ".env.example")
    found: list[Problem] = []
    file = folder / ".env"
    if file.exists():
        found += _in_file(list(parse(file.read_text())), defaults)
    values = effective(folder, shell)
    for name in defaults:
        check, value = rule(name), values[name]
        if check and not (check.test(value) or (check.empty and not value)):
            place = "the shell's environment" if name in shell else "docker/.env"
            found.append(Problem(f"{name}={value} in {place}: must be {check.must}", _default(name, defaults)))
    return found + _heaps(values) + _same_ports(values)


def _default(name: str, defaults: Mapping[str, str]) -> str:
    return f"correct it; the default is {name}={defaults[name]}"


def _in_file(lines: list[tuple[int, str, str | None]], defaults: Mapping[str, str]) -> list[Problem]:
    found, seen = [], {}
    for number, name, value in lines:
        place = f"docker/.env, line {number}"
        if value is None:
            found.append(Problem(f"{place}: {name!r} is no NAME=value", "correct the line, or put # before it"))
        elif name in seen:
            found.append(Problem(f"{place}: {name} is set in line {seen[name]} already", "remove one of the two"))
        elif name not in defaults:
            close = difflib.get_close_matches(name, defaults, 1)
            meant = f"did you mean {close[0]}? " if close else ""
            found.append(Problem(f"{place}: {name} is no setting of ShuDL", f"{meant}docker/.env.example has them all"))
        seen.setdefault(name, number)
    for name, value in defaults.items():
        if name not in seen:
            found.append(Problem(f"docker/.env: {name} is missing", f"add the line {name}={value}, as in docker/.env.example"))
    return found


def _heaps(values: Mapping[str, str]) -> list[Problem]:
    """Heaps that do not fit into their container: the kernel would kill the process under load."""
    found = []
    for name, value in values.items():
        limit = f"{name.removesuffix('_HEAP')}_MEMORY"
        if not name.endswith("_HEAP") or limit not in values:
            continue
        try:
            fits = size(value) < size(values[limit])
        except ValueError:
            continue
        if not fits:
            way_out = f"raise {limit} well above it (a half more), or lower {name}"
            found.append(Problem(f"{name}={value} does not fit into {limit}={values[limit]}", way_out))
    return found


def _same_ports(values: Mapping[str, str]) -> list[Problem]:
    first: dict[str, str] = {}
    found = []
    for name, value in values.items():
        if not name.endswith("_PUBLISHED_PORT"):
            continue
        if value in first:
            found.append(Problem(f"{name}={value} is {first[value]} as well", "give each a port of its own"))
        first.setdefault(value, name)
    return found
