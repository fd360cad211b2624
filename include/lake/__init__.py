"""The lake: one Iceberg catalogue on Nessie, spoken to by every engine."""
