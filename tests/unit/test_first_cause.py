"""The first cause of a failure, from answers and stack traces that Kafka Connect and Flink gave (frames left out)."""

from __future__ import annotations

import pytest

from include.platform.flink import first_cause

CAUSES = {
    "a wrong password": (
        "Connector configuration is invalid and contains the following 1 error(s):\n"
        'Error while validating connector config: FATAL: password authentication failed for user "flights"\n'
        "You can also find the above list of errors at the endpoint `/connector-plugins/{connectorType}/config/validate`",
        'FATAL: password authentication failed for user "flights"',
    ),
    "two wrong settings": (
        "Connector configuration is invalid and contains the following 2 error(s):\n"
        "The 'topic.prefix' value is invalid: A value is required\n"
        "The 'slot.name' value is invalid: Valid replication slot name must contain only digits\n"
        "You can also find the above list of errors at the endpoint `/connector-plugins/{connectorType}/config/validate`",
        "The 'topic.prefix' value is invalid: A value is required; "
        "The 'slot.name' value is invalid: Valid replication slot name must contain only digits",
    ),
    "a role that may not replicate": (
        "io.debezium.DebeziumException: Creation of replication slot failed\n"
        "\tat io.debezium.connector.postgresql.PostgresConnectorTask.tryToCreateSlot(PostgresConnectorTask.java:329)\n"
        "Caused by: org.postgresql.util.PSQLException: FATAL: permission denied to start WAL sender\n"
        "  Detail: Only roles with the REPLICATION attribute may start a WAL sender process.\n"
        "\tat org.postgresql.core.v3.ConnectionFactoryImpl.doAuthentication(ConnectionFactoryImpl.java:713)\n"
        "\t... 14 more\n",
        "PSQLException: FATAL: permission denied to start WAL sender",
    ),
    "no publication": (
        "org.apache.kafka.connect.errors.ConnectException: Publication autocreation is disabled, please create one and restart "
        "the connector.\n\tat io.debezium.connector.postgresql.connection.PostgresReplicationConnection.initPublication\n",
        "ConnectException: Publication autocreation is disabled, please create one and restart the connector.",
    ),
    "no registry, from Connect": (
        "org.apache.kafka.connect.errors.ConnectException: Tolerance exceeded in error handler\n"
        "\tat org.apache.kafka.connect.runtime.errors.RetryWithToleranceOperator.execAndHandleError\n"
        "Caused by: org.apache.kafka.connect.errors.DataException: Failed to serialize Avro data from topic shop.public.t :\n"
        "\tat io.confluent.connect.avro.AvroConverter.fromConnectData(AvroConverter.java:110)\n"
        "Caused by: org.apache.kafka.common.errors.SerializationException: Error serializing Avro message\n"
        "Caused by: java.net.ConnectException: Connection refused\n\tat java.base/sun.nio.ch.Net.pollConnect(Native Method)\n",
        "Error serializing Avro message: Connection refused",
    ),
    "no registry, from Flink": (
        "java.io.IOException: Failed to deserialize consumer record due to\n"
        "\tat org.apache.flink.connector.kafka.source.reader.KafkaRecordEmitter.emitRecord(KafkaRecordEmitter.java:62)\n"
        "Caused by: java.io.IOException: Can't deserialize Debezium Avro message.\n\t... 14 more\n"
        "Caused by: java.io.IOException: Failed to deserialize Avro record.\n\t... 16 more\n"
        "Caused by: java.net.ConnectException: Connection refused\n\t... 17 more\n",
        "Failed to deserialize Avro record: Connection refused",
    ),
    "a value that does not fit": (
        "java.io.IOException: Failed to deserialize consumer record due to\n\tat a.B.c(B.java:1)\n"
        "Caused by: java.io.IOException: Can't deserialize Debezium Avro message.\n\t... 14 more\n"
        "Caused by: org.apache.flink.streaming.runtime.tasks.ExceptionInChainedOperatorException: "
        "Could not forward element to next operator\n\t... 16 more\n"
        "\tSuppressed: java.lang.IllegalStateException: closed\n\tCaused by: java.lang.RuntimeException: not this one\n"
        "Caused by: java.lang.NumberFormatException: For input string: 'Endeavor Air Inc.'. Invalid character found.\n",
        "NumberFormatException: For input string: 'Endeavor Air Inc.'. Invalid character found.",
    ),
    "no topic": (
        "org.apache.flink.util.FlinkException: Global failure triggered by OperatorCoordinator for 'Source: source[34]'.\n"
        "Caused by: org.apache.flink.util.FlinkRuntimeException: Failed to list subscribed topic partitions due to \n"
        "Caused by: java.lang.RuntimeException: Failed to get metadata for topics [shop.none].\n\t... 4 more\n"
        "Caused by: java.util.concurrent.ExecutionException: org.apache.kafka.common.errors.UnknownTopicOrPartitionException: "
        "This server does not host this topic-partition.\n\t... 9 more\n"
        "Caused by: org.apache.kafka.common.errors.UnknownTopicOrPartitionException: "
        "This server does not host this topic-partition.\n",
        "Failed to get metadata for topics [shop.none]: This server does not host this topic-partition.",
    ),
    "a statement": (
        "<Exception on server side:\norg.apache.flink.table.gateway.api.utils.SqlGatewayException: Failed to fetchResults.\n"
        "\tat org.apache.flink.table.gateway.rest.handler.statement.FetchResultsHandler.handleRequest\n"
        "Caused by: org.apache.flink.table.api.ValidationException: SQL validation failed. From line 1, column 15\n"
        "Caused by: org.apache.calcite.sql.validate.SqlValidatorException: Object 'nosuch' not found\n\tat x.Y.z\nEnd>",
        "SqlValidatorException: Object 'nosuch' not found",
    ),
    "an exception without a text": (
        "java.lang.RuntimeException: Failed to read row 5.\nCaused by: java.lang.NullPointerException\n\tat x.Y.z\n",
        "Failed to read row 5: NullPointerException",
    ),
    "one sentence": ("The connection attempt failed.", "The connection attempt failed."),
    "nothing": ("", "no reason given"),
}


@pytest.mark.parametrize("name", CAUSES)
def test_the_innermost_message_that_says_something(name: str) -> None:
    trace, cause = CAUSES[name]
    assert first_cause(trace) == cause


def test_a_long_cause_is_cut() -> None:
    assert len(first_cause(f"java.lang.Error: {'x' * 5000}")) <= 600
