"""What ``docker/platform.sh`` found out on the host, where Python need not be: lines of ``kind<TAB>value``.

docker      version of the engine                    folder     the host's path of docker/
compose     version of Compose                       listener   a line of /proc/net/tcp or tcp6
image       name:tag of an image that is there       holder     a line of ``ss -Hltnp``
volume      name of a volume that is there
container   project<TAB>folder<TAB>name<TAB>ports of a running one
setting     NAME=value in the shell's environment    config     a line of ``docker compose config --format json``
socket      path<TAB>gid of Docker's socket          refused    a line of what Compose says against its configuration
"""

from __future__ import annotations

import ipaddress
import json
import re
import socket
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

LISTENS = "0A"


@dataclass(frozen=True)
class Container:
    project: str
    folder: str
    name: str
    ports: frozenset[int]


class Facts:
    def __init__(self, lines: Iterable[str]) -> None:
        self._values: dict[str, list[str]] = defaultdict(list)
        for line in lines:
            kind, _, value = line.rstrip("\n").partition("\t")
            self._values[kind].append(value)

    def all(self, kind: str) -> list[str]:
        return self._values.get(kind, [])

    def one(self, kind: str) -> str:
        return next(iter(self.all(kind)), "")

    @cached_property
    def shell(self) -> dict[str, str]:
        return dict(setting.split("=", 1) for setting in self.all("setting"))

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration as Compose resolves it, with the services of the chosen profiles; empty when it refuses it."""
        return json.loads("\n".join(self.all("config")) or "{}")

    @cached_property
    def containers(self) -> list[Container]:
        return [_container(*value.split("\t")) for value in self.all("container")]

    @cached_property
    def listeners(self) -> set[tuple[str, int]]:
        """Address and port of everything that listens on the host."""
        found = set()
        for line in self.all("listener"):
            words = line.split()
            if len(words) > 3 and words[3] == LISTENS:
                address, _, port = words[1].partition(":")
                found.add((_address(address), int(port, 16)))
        return found

    def holder(self, port: int) -> str:
        """Who listens at ``port``, as far as it can be seen: ``nginx (pid 12)``, or ""."""
        for container in self.containers:
            if port in container.ports:
                return f"the container {container.name}"
        for line in self.all("holder"):
            words = line.split()
            if len(words) > 3 and words[3].endswith(f":{port}") and (match := re.search(r'\("([^"]+)",pid=(\d+)', line)):
                return f"{match[1]} (pid {match[2]})"
        return ""


def _container(project: str, folder: str, name: str, ports: str) -> Container:
    """``ports`` as ``docker ps`` tells them: ``127.0.0.1:8080->8080/tcp, [::]:9000-9001->9000-9001/tcp``."""
    found: set[int] = set()
    for first, last in re.findall(r":(\d+)(?:-(\d+))?->", ports):
        found.update(range(int(first), int(last or first) + 1))
    return Container(project, folder, name, frozenset(found))


def _address(text: str) -> str:
    """An address of /proc/net/tcp (little-endian words in hexadecimal); IPv4 within IPv6 becomes IPv4."""
    data = b"".join(bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8))
    if len(data) == 4:
        return socket.inet_ntop(socket.AF_INET, data)
    address = ipaddress.IPv6Address(data)
    return str(address.ipv4_mapped or address)
