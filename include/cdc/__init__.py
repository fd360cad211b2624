"""Change data capture: PostgreSQL → Debezium → Kafka → Flink → Iceberg."""
