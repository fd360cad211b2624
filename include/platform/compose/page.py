"""The tables in ``docs/docker.md`` and ``docs/security.md`` that follow from ``docker/compose.yaml`` and from Kafka's rights.

    python -m include.platform.compose.page

writes each anew between its two comments, ``<!-- services -->`` and ``<!-- end of services -->``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from include.platform.compose.model import CORE, FULL, Compose
from include.platform.kafka import GRANTS
from include.platform.settings import ROOT

PAGES = (ROOT / "docs" / "docker.md", ROOT / "docs" / "security.md")

VARIABLE = re.compile(r"\$\{\w+(?::-([^}]*))?\}")

DATABASE_PORTS = {("haproxy", "15000"), ("haproxy", "15001")}
"""Published ports that speak PostgreSQL's protocol, TLS within it."""

NETWORKS = {
    "management": "Airflow, its database, its way to Docker, and what watches the platform",
    "control": "who is PostgreSQL's primary is agreed here",
    "data": "PostgreSQL, Kafka and their clients",
    "storage": "the lake's objects and catalogue, and who reads or writes them",
    "edge": "what has a port on the host",
    "sources": "who reads databases that are elsewhere; it leads out of Docker, as edge does, and no other",
}
"""What each is for; the order in which they are shown."""


def default(value: object) -> str:
    """``value`` as it is when no variable is set."""
    return VARIABLE.sub(lambda found: found[1] or "", str(value))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _table(*rows: tuple[str, ...]) -> str:
    head, *rest = rows
    return "\n".join([_row(*head), _row(*("---" for _ in head)), *(_row(*row) for row in rest)])


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _image(service: dict[str, Any]) -> str:
    image = default(service["image"])
    return f"`{image.rpartition(':')[0]}`" if image.startswith("shudl/") else f"`{image}`"


def has_certificate(service: dict[str, Any]) -> bool:
    """Whether ``service`` is given a certificate of its own: then it speaks TLS."""
    return any(isinstance(secret, dict) and secret.get("target") == "tls.crt" for secret in service.get("secrets", ()))


def _published(name: str, service: dict[str, Any]) -> str:
    found = []
    for port in service.get("ports", ()):
        _, host, inner = default(port).rsplit(":", 2)
        scheme = "https" if has_certificate(service) else "http"
        found.append(f"{host} {'postgresql' if (name, inner) in DATABASE_PORTS else scheme}")
    return "<br>".join(found)


def services(compose: Compose) -> str:
    return _table(
        ("container", "image", "user", "networks", "published", "memory", "profile"),
        *(
            (
                f"`{name}`",
                _image(service),
                service["user"].partition(":")[0],
                ", ".join(sorted(service["networks"], key=list(NETWORKS).index)),
                _published(name, service),
                default(service["mem_limit"]),
                next(iter(set(service.get("profiles", ())) - {FULL}), ""),
            )
            for name, service in compose.services.items()
        ),
    )


def profiles(compose: Compose) -> str:
    def members(profile: str) -> str:
        return _listed([name for name, service in compose.services.items() if profile in service.get("profiles", ())])

    core = compose.memory_gb({CORE})
    apart = _listed(sorted(compose.apart - {"cli"}))
    more = {profile: f"{compose.memory_gb({profile}) - core:.2g} GB more" for profile in sorted(compose.profiles - {FULL, "cli"})}
    return _table(
        ("`COMPOSE_PROFILES`", "what runs", "memory in use, about"),
        (f"empty, or `{CORE}`", "everything without a profile: databases to ClickHouse, and Airflow", f"{core:g} GB"),
        *((f"`{profile}`", members(profile), memory) for profile, memory in more.items()),
        (f"`{FULL}`", f"all of these but {apart}" if apart else "all of these", f"{compose.memory_gb({FULL}):.3g} GB"),
    )


def networks(compose: Compose) -> str:
    return _table(
        ("network", "what for", "leads out of Docker", "who is on it"),
        *(
            (
                f"`{network}`",
                purpose,
                "no" if (compose.document["networks"][network] or {}).get("internal") else "yes",
                _listed([name for name, service in compose.services.items() if network in service["networks"]]),
            )
            for network, purpose in NETWORKS.items()
        ),
    )


def rights(_: Compose) -> str:
    def deeds(operations: tuple[str, ...], allow: bool) -> str:
        return ("" if allow else "**not** ") + ", ".join(operations)

    return _table(
        ("user", "what", "which", "may", "why"),
        *((f"`{g.principal}`", g.kind, f"`{g.name}`", deeds(g.operations, g.allow), g.reason) for g in GRANTS),
    )


def certificates(compose: Compose) -> str:
    users = {name: compose.users(f"./certificates/{name}.key") for name in compose.certificates}
    own = _listed([name for name, of in users.items() if of == [name]])
    shared = (f"{_listed(of)} (`{name}`)" for name, of in users.items() if of != [name])
    return "; ".join((own, *shared)) + "."


def filtered(compose: Compose) -> str:
    told = default(compose.services["docker-filter"]["environment"]["FILTER_CONTAINERS"]).split()
    let = {name.removeprefix(f"{compose.project}-").removesuffix("-1") for name in told}
    return f"Closed to it are {_listed([name for name in compose.services if name not in let])}."


TABLES: dict[str, Callable[[Compose], str]] = {
    table.__name__: table for table in (services, profiles, networks, rights, certificates, filtered)
}


def filled(text: str, compose: Compose) -> str:
    """``text`` with every table made anew. Raises ValueError where a table's end is missing."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        if begin in text:
            before, _, rest = text.partition(begin)
            if end not in rest:
                raise ValueError(f"{begin} has no {end} after it")
            text = f"{before}{begin}\n\n{table(compose)}\n\n{end}{rest.partition(end)[2]}"
    return text


def read() -> Compose:
    return Compose.read(ROOT / "docker" / "compose.yaml")


def main(pages: tuple[Path, ...] = PAGES) -> None:
    compose = read()
    for page in pages:
        page.write_text(filled(page.read_text(), compose))


if __name__ == "__main__":
    main()
