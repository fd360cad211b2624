"""Kafka: how its clients sign in, and what each of the platform's principals may do.

``python -m include.platform.kafka`` gives the principals in :data:`GRANTS` exactly those rights.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from include.platform.endpoints import Endpoint, Endpoints

if TYPE_CHECKING:
    from confluent_kafka.admin import AclBinding, AdminClient

REQUEST_S = 20
WAIT_S = 120
"""How long the entry point waits for Kafka."""
CONNECT_GROUP = "shudl-connect"
"""The group of Kafka Connect's workers, as in their configuration."""
SECRETS = {"connect": "kafka_connect", "flink": "kafka_flink", "kafka-ui": "kafka_ui"}
"""Principal → the secret that holds its password."""


class RightsRefused(RuntimeError):
    """This principal may not see or give rights, or Kafka keeps none: they are made elsewhere, or not at all."""


class KafkaUnreachable(RuntimeError):
    """No broker answers, or none lets this principal in; the text has the client's own reason."""


@dataclass(frozen=True)
class Grant:
    """What ``principal`` may do (or, with ``allow`` False, may not do whatever else says) with resources of one kind.

    ``kind`` is TOPIC, GROUP, CLUSTER or TRANSACTIONAL_ID; ``name`` one resource, those that begin so (``cdc.*``), or all (``*``).
    """

    principal: str
    kind: str
    name: str
    operations: tuple[str, ...]
    reason: str
    allow: bool = True


GRANTS = (
    Grant("connect", "TOPIC", "*", ("CREATE", "WRITE", "DESCRIBE_CONFIGS"), "writes sources' topics, makes heartbeats' topics"),
    Grant("connect", "TOPIC", "_connect_*", ("READ",), "reads the workers' configuration, offsets and states"),
    Grant("connect", "GROUP", CONNECT_GROUP, ("READ",), "its workers find each other"),
    Grant("connect", "TRANSACTIONAL_ID", f"{CONNECT_GROUP}*", ("WRITE", "DESCRIBE"), "exactly-once connectors' producers"),
    Grant("connect", "TRANSACTIONAL_ID", f"connect-cluster-{CONNECT_GROUP}", ("WRITE", "DESCRIBE"), "the leading worker's"),
    Grant("flink", "TOPIC", "*", ("READ",), "reads sources' topics"),
    Grant("flink", "TOPIC", "_connect_*", ("READ",), "connectors' settings hold the salt of masks", allow=False),
    Grant("flink", "GROUP", "cdc.*", ("READ",), "jobs commit what they have read"),
    Grant("kafka-ui", "TOPIC", "*", ("READ", "DESCRIBE_CONFIGS"), "shows topics and records"),
    Grant("kafka-ui", "TOPIC", "_connect_*", ("READ",), "connectors' settings hold the salt of masks", allow=False),
    Grant("kafka-ui", "GROUP", "*", ("DESCRIBE",), "shows consumer groups"),
    Grant("kafka-ui", "CLUSTER", "kafka-cluster", ("DESCRIBE", "DESCRIBE_CONFIGS"), "shows brokers and their settings"),
)
"""The rights of every principal but the two super users, ``broker`` (brokers among themselves) and ``airflow`` (which makes
topics, these rights and passwords). READ and WRITE include DESCRIBE. Whoever writes a topic may write idempotently."""


class ClientConfig(dict[str, Any]):
    """Settings of a librdkafka client, which do not show their secrets."""

    def __repr__(self) -> str:
        secret = ("password", "secret", "pem")
        return repr({name: "…" if any(word in name for word in secret) else value for name, value in self.items()})


def client_config(endpoint: Endpoint, more: Mapping[str, Any] | None = None) -> ClientConfig:
    """librdkafka's settings for a client of the cluster: all that the connection's extra holds, and ``more``."""
    return ClientConfig({**endpoint.extra, **(more or {})})


def flink_properties(endpoint: Endpoint) -> dict[str, str]:
    """Options of a Kafka table in Flink SQL: where the cluster is, and how to speak to it; who signs in, Flink knows."""
    names = {name: name for name in ("bootstrap.servers", "security.protocol", "sasl.mechanism")}
    names["sasl.mechanisms"] = "sasl.mechanism"  # librdkafka knows both
    return {f"properties.{theirs}": endpoint.extra[ours] for ours, theirs in names.items() if ours in endpoint.extra}


def admin_client(endpoint: Endpoint, more: Mapping[str, Any] | None = None) -> AdminClient:
    """An admin client that writes no log."""
    from confluent_kafka.admin import AdminClient

    return AdminClient(client_config(endpoint, {"log_level": 0, **(more or {})}))


def brokers(endpoint: Endpoint, timeout_s: float = REQUEST_S) -> int:
    """How many brokers the cluster has, from one that answers. Raises :class:`KafkaUnreachable`."""
    from confluent_kafka import KafkaException

    said: list[str] = []
    admin = admin_client(endpoint, {"socket.timeout.ms": 5000, "error_cb": lambda error: said.append(error.str())})
    try:
        found = len(admin.list_topics(timeout=timeout_s).brokers)
    except KafkaException as error:
        with suppress(Exception):
            admin.poll(0)
        reasons = [reason for reason in said if "brokers are down" not in reason]
        raise KafkaUnreachable(f"{endpoint.extra['bootstrap.servers']}: {reasons[-1] if reasons else error}") from None
    if not found:
        raise KafkaUnreachable(f"{endpoint.extra['bootstrap.servers']}: no broker is registered")
    return found


def wait(endpoint: Endpoint, timeout_s: float) -> None:
    """Until a broker lets this principal in. Raises :class:`KafkaUnreachable` after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            brokers(endpoint, timeout_s=5)
            return
        except KafkaUnreachable as error:
            if time.monotonic() > deadline:
                raise KafkaUnreachable(f"{error}, after {timeout_s:.0f} s") from None
        time.sleep(0.5)


def ensure_access(endpoints: Endpoints, passwords: Mapping[str, str] | None = None) -> list[str]:
    """Give the principals exactly the rights in :data:`GRANTS`, and those in ``passwords`` theirs; which rights changed.

    Ends when those whose passwords were given can sign in. Kafka does not tell passwords: they are set each time. Does
    nothing to a Kafka without SASL. Raises :class:`RightsRefused`, :class:`KafkaUnreachable`.
    """
    from confluent_kafka import KafkaError, KafkaException

    endpoint, passwords = endpoints["shudl_kafka"], passwords or {}
    if not endpoint.extra.get("security.protocol", "").startswith("SASL_"):
        return []
    admin = admin_client(endpoint)
    try:
        changes = _set_rights(admin, {binding for grant in GRANTS for binding in bindings(grant)})
        if passwords:
            _set_passwords(admin, endpoint.extra["sasl.mechanism"], passwords)
    except KafkaException as error:
        if error.args[0].code() not in (KafkaError.SECURITY_DISABLED, KafkaError.CLUSTER_AUTHORIZATION_FAILED):
            raise
        where = f"{endpoint.extra.get('sasl.username')} at {endpoint.extra['bootstrap.servers']}"
        raise RightsRefused(f"{where} may not give rights: {error.args[0].name()}") from None
    for principal, password in passwords.items():
        wait(replace(endpoint, extra={**endpoint.extra, "sasl.username": principal, "sasl.password": password}), 30)
    return changes


def _set_passwords(admin: AdminClient, mechanism: str, passwords: Mapping[str, str]) -> None:
    from confluent_kafka.admin import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

    kind = ScramCredentialInfo(ScramMechanism[mechanism.replace("-", "_")], 8192)
    wanted = [UserScramCredentialUpsertion(principal, kind, password.encode()) for principal, password in passwords.items()]
    for answer in admin.alter_user_scram_credentials(wanted, request_timeout=REQUEST_S).values():
        answer.result(REQUEST_S)


def bindings(grant: Grant) -> list[AclBinding]:
    """A grant as Kafka keeps it: a binding for each operation."""
    from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

    kind = ResourceType["BROKER" if grant.kind == "CLUSTER" else grant.kind]  # librdkafka's name for it
    prefixed = grant.name.endswith("*") and grant.name != "*"
    name = grant.name.removesuffix("*") if prefixed else grant.name
    pattern = ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL
    permission = AclPermissionType.ALLOW if grant.allow else AclPermissionType.DENY
    user = f"User:{grant.principal}"
    return [AclBinding(kind, name, pattern, user, "*", AclOperation[o], permission) for o in grant.operations]


def _set_rights(admin: AdminClient, wanted: set[AclBinding]) -> list[str]:
    """Make the rights of the principals in ``wanted`` those and no others."""
    from confluent_kafka.admin import AclBindingFilter, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

    everything = (ResourceType.ANY, None, ResourcePatternType.ANY)
    any_deed = (AclOperation.ANY, AclPermissionType.ANY)
    present = {
        binding
        for user in {binding.principal for binding in wanted}
        for binding in admin.describe_acls(
            AclBindingFilter(*everything, user, None, *any_deed), request_timeout=REQUEST_S
        ).result(REQUEST_S)
    }
    missing, surplus = sorted(wanted - present), sorted(present - wanted)
    if missing:
        for made in admin.create_acls(missing, request_timeout=REQUEST_S).values():
            made.result(REQUEST_S)
    if surplus:
        exactly = [AclBindingFilter(*binding._to_tuple()) for binding in surplus]
        for gone in admin.delete_acls(exactly, request_timeout=REQUEST_S).values():
            gone.result(REQUEST_S)
    return [*(f"granted {_words(b)}" for b in missing), *(f"took away {_words(b)}" for b in surplus)]


def _words(binding: AclBinding) -> str:
    kind = "CLUSTER" if binding.restype.name == "BROKER" else binding.restype.name
    name = binding.name + "*" * (binding.resource_pattern_type.name == "PREFIXED")
    return f"{binding.principal}: {binding.permission_type.name} {binding.operation.name} {kind} {name}"


def main() -> None:
    from include.platform.endpoints import local_endpoints
    from include.platform.settings import SettingsError, settings

    endpoints = local_endpoints()
    passwords: dict[str, str] = {}
    for principal, name in SECRETS.items():
        with suppress(SettingsError):  # Kafka has set those of its own that this process is not given
            passwords[principal] = settings.secret(name)
    try:
        wait(endpoints["shudl_kafka"], WAIT_S)
        changes = ensure_access(endpoints, passwords)
    except (KafkaUnreachable, RightsRefused) as error:
        sys.exit(f"kafka-access: {error}")
    print("\n".join(changes) or "kafka-access: every right is as it should be")


if __name__ == "__main__":
    main()
