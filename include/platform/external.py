"""What must hold of services that are somebody else's, which ``SHUDL_EXTERNAL`` names.

The connection is the truth for all that Airflow and the command line do. A service of ours that is configured when it starts
(Kafka Connect, Nessie, Trino, …) is told the same address by a setting; :func:`problems` holds the two together.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from include.platform.catalog import CONN_IDS, DOCKER, LOCAL, external_to
from include.platform.endpoints import Endpoint, Endpoints, own_endpoints
from include.platform.settings import Settings, settings


@dataclass(frozen=True)
class Address:
    """What the setting ``name`` must say of ``service``, from its connection."""

    name: str
    service: str
    of: Callable[[Endpoint], str]


ADDRESSES = (
    Address("KAFKA_BOOTSTRAP", "kafka", lambda e: e.address),
    Address("LAKE_CATALOG_URI", "nessie", lambda e: f"{e.url}/iceberg/"),
    Address("LAKE_S3_ENDPOINT", "s3", lambda e: e.url),
    Address("POSTGRES_ADDRESS", "haproxy", lambda e: e.address),
)
KAFKA_LOGIN = (
    "KAFKA_SASL_MECHANISM",
    *("KAFKA_CONNECT_USER", "KAFKA_CONNECT_PASSWORD_FILE"),
    *("KAFKA_FLINK_USER", "KAFKA_FLINK_PASSWORD_FILE"),
)
"""How Kafka Connect and Flink sign in to a Kafka that is not ours."""
TRUST = ("TLS_CA_FILE", "TLS_TRUSTSTORE_FILE")


def told(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The settings of this process that say where external services are."""
    names = ("SHUDL_EXTERNAL", *(address.name for address in ADDRESSES))
    return {name: environment[name] for name in names if environment.get(name)}


def problems(endpoints: Endpoints, s: Settings = settings, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Connections that are missing or say too little, and settings that say otherwise than the connections."""
    found, names = external_to(s), {svc.name for svc in (DOCKER if s.docker else LOCAL)}
    place = "docker/.env, then make up" if s.docker else "the environment, then ./shudl up"
    ours, wrong = own_endpoints(s), []
    for name, conn_id in found.items():
        if not conn_id:
            continue
        try:
            endpoint = endpoints[CONN_IDS[name]]
        except Exception as error:
            wrong.append(f"{name} is external: {error}")
            continue
        wrong += [f"{name} is external: {text}" for text in _lacking(name, endpoint, ours[CONN_IDS[name]])]
    if wrong:
        return list(dict.fromkeys(wrong))
    for address in ADDRESSES:
        if address.service not in names:
            continue
        wanted, value = address.of(endpoints[CONN_IDS[address.service]]), environment.get(address.name)
        if address.service not in found and value and not _same(value, wanted):
            wrong.append(
                f"{address.name}={value}, but {address.service} is not in SHUDL_EXTERNAL: name it there, or remove the setting"
            )
        elif address.service in found and not _same(value or "", wanted):
            wrong.append(
                f"connection {found[address.service]} says {wanted}, and {address.name} says {value or 'nothing'}, which our "
                f"other services go by: set {address.name}={wanted} in {place}"
            )
    return wrong


def _same(one: str, other: str) -> bool:
    return one.rstrip("/") == other.rstrip("/")


def _lacking(name: str, endpoint: Endpoint, ours: Endpoint) -> list[str]:
    """What the connection of an external service does not say, or cannot say so."""
    what = f"connection {endpoint.conn_id}"
    if ours.conn_type == "kafka":
        if endpoint.conn_type != "kafka" or not endpoint.address:
            return [f'{what} must be of type kafka, with {{"bootstrap.servers": "host:port"}} in its extra']
        return []
    found = []
    if not endpoint.host or not endpoint.port:
        found.append(f"{what} must have a host and a port")
    if ours.conn_type in ("postgres", "spark") and endpoint.conn_type != ours.conn_type:
        found.append(f"{what} is of type {endpoint.conn_type}; it must be {ours.conn_type}")
    if name.startswith("flink") and "checkpoint_dir" not in endpoint.extra and ours.conn_id == "shudl_flink":
        found.append(
            f"{what} must say in its extra where checkpoints are, in a folder that Airflow and that Flink share: "
            '{"checkpoint_dir": "/…"}'
        )
    if name == "connect" and "password_reference" not in endpoint.extra:
        found.append(
            f"{what} must say in its extra how that Kafka Connect finds sources' passwords: "
            '{"password_reference": "${secrets:namespace/{source}:password}", "mask_secret": "…"}'
        )
    return found
