"""The lake: one Iceberg catalogue on Nessie, spoken to by every engine."""

RESERVED = ("_file", "_pos", "_deleted", "_spec_id", "_partition", "_row_id", "_last_updated_sequence_number")
"""Names of columns that are Iceberg's own: not every engine reads a table that has such a column."""
