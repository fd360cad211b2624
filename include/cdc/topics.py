"""The Kafka topics and registry subjects of a pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

from include.cdc.connector import MESSAGE_BYTES, RETENTION_MS
from include.cdc.pipelines import HEARTBEAT_TABLE, Pipeline, PipelineError
from include.platform.endpoints import Endpoints
from include.platform.kafka import admin_client

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

COMPATIBILITY = "NONE"
"""ShuDL decides itself how a table's schema may change; the registry must never stop the connector."""


class TopicError(RuntimeError):
    """Kafka refuses to make a topic."""


def _admin(endpoints: Endpoints) -> AdminClient:
    return admin_client(endpoints["shudl_kafka"])


def reconcile_topics(pipeline: Pipeline, endpoints: Endpoints) -> list[str]:
    """Make each table's topic (one partition: order by transaction) and its subjects' rule; return what changed."""
    admin = _admin(endpoints)
    wanted = [pipeline.topic(table) for table in (*pipeline.tables, HEARTBEAT_TABLE)]
    config = {
        "cleanup.policy": "delete",
        "retention.ms": str(RETENTION_MS),
        "compression.type": "producer",
        "max.message.bytes": str(MESSAGE_BYTES),
    }
    try:
        changes = ensure_topics(admin, wanted, config)
    except TopicError as error:
        raise PipelineError([str(error)]) from error
    return changes + _reconcile_subjects(wanted, endpoints)


def ensure_topics(admin: AdminClient, wanted: list[str], config: dict[str, str]) -> list[str]:
    """Make the topics (one partition each) that are missing, with ``config``, which the others get; what changed.

    Raises :class:`TopicError`.
    """
    from confluent_kafka.admin import NewTopic

    present = admin.list_topics(timeout=20).topics
    missing = [NewTopic(name, num_partitions=1, config=config) for name in wanted if name not in present]
    for topic, made in admin.create_topics(missing).items() if missing else ():
        try:
            made.result(30)
        except Exception as error:
            raise TopicError(f"topic {topic}: {error}") from error
    changes = [f"made topic {topic.topic}" for topic in missing]
    return changes + _reconcile_config(admin, [name for name in wanted if name in present], config)


def _reconcile_config(admin: AdminClient, topics: list[str], config: dict[str, str]) -> list[str]:
    from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

    changes: list[str] = []
    if not topics:
        return changes
    for resource, answer in admin.describe_configs([ConfigResource(ResourceType.TOPIC, name) for name in topics]).items():
        have = {name: entry.value for name, entry in answer.result(30).items()}
        wrong = {name: value for name, value in config.items() if have.get(name) != value}
        if not wrong:
            continue
        entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in wrong.items()]
        altered = admin.incremental_alter_configs(
            [ConfigResource(ResourceType.TOPIC, resource.name, incremental_configs=entries)]
        )
        next(iter(altered.values())).result(30)
        changes.append(f"set {', '.join(wrong)} of topic {resource.name}")
    return changes


def _reconcile_subjects(topics: list[str], endpoints: Endpoints) -> list[str]:
    changes: list[str] = []
    with httpx.Client(base_url=f"{endpoints['shudl_registry'].url}/apis/ccompat/v7", timeout=20) as http:
        for subject in (f"{topic}-{part}" for topic in topics for part in ("key", "value")):
            present = http.get(f"/config/{subject}")
            if present.status_code == 200 and present.json().get("compatibilityLevel") == COMPATIBILITY:
                continue
            http.put(f"/config/{subject}", json={"compatibility": COMPATIBILITY}).raise_for_status()
            changes.append(f"set compatibility of subject {subject} to {COMPATIBILITY}")
    return changes


def end_offsets(topics: list[str], endpoints: Endpoints) -> dict[str, int]:
    """The offset after the last record of each single-partition topic."""
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import OffsetSpec

    asked = {TopicPartition(topic, 0): OffsetSpec.latest() for topic in topics}
    admin = _admin(endpoints)  # answers arrive only while it lives
    answers = admin.list_offsets(asked, request_timeout=20)
    return {partition.topic: answer.result(30).offset for partition, answer in answers.items()}


def held_offsets(topic: str, endpoints: Endpoints) -> tuple[int, int]:
    """The offset of the first record that the single-partition topic still holds, and the one after its last."""
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import OffsetSpec

    admin = _admin(endpoints)
    partition = TopicPartition(topic, 0)

    def ask(spec: Any) -> int:
        return admin.list_offsets({partition: spec}, request_timeout=20)[partition].result(30).offset

    return ask(OffsetSpec.earliest()), ask(OffsetSpec.latest())


def topic_id(topic: str, endpoints: Endpoints) -> str:
    """Kafka's own id of the topic, another one when a topic of that name is made anew."""
    from confluent_kafka import TopicCollection

    admin = _admin(endpoints)
    return str(admin.describe_topics(TopicCollection([topic]), request_timeout=20)[topic].result(30).topic_id)


def forget_group(group: str, endpoints: Endpoints) -> None:
    """Remove the offsets that a consumer group committed; does nothing when there are none."""
    from confluent_kafka import KafkaError, KafkaException

    admin = _admin(endpoints)
    try:
        admin.delete_consumer_groups([group], request_timeout=20)[group].result(30)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
            raise


def group_offsets(group: str, topic: str, endpoints: Endpoints) -> int:
    """The offset that the consumer group committed, 0 when it has not."""
    from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

    asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0)])
    admin = _admin(endpoints)
    answer = admin.list_consumer_group_offsets([asked], request_timeout=20)[group].result(30)
    return max(answer.topic_partitions[0].offset, 0)


def last_timestamp(topic: str, endpoints: Endpoints) -> float | None:
    """When the topic's last record was written, seconds since 1970; None when it holds none."""
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import OffsetSpec

    partition = TopicPartition(topic, 0)
    admin = _admin(endpoints)
    answer = admin.list_offsets({partition: OffsetSpec.max_timestamp()}, request_timeout=20)[partition].result(30)
    return answer.timestamp / 1000 if answer.timestamp and answer.timestamp > 0 else None
