"""Batch ingest: Airbyte's connectors, Kafka to Iceberg by Spark, landing files, dead letters."""
