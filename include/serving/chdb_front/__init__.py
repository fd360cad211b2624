"""ClickHouse's HTTP interface over the engine in the wheel ``chdb``, for machines without a ClickHouse server.

``python -m include.serving.chdb_front --host H --port P --path DIR [--config-file FILE]``. The user comes from
``CLICKHOUSE_USER``, the password from the file ``CLICKHOUSE_PASSWORD_FILE``, the engine's memory limit from
``CLICKHOUSE_MEMORY_BYTES``. With the PEM files ``TLS_CERT_FILE`` and ``TLS_KEY_FILE`` it answers to HTTPS only. It
speaks what https://clickhouse.com/docs/interfaces/http describes, but for external tables, roles, and the native block
compression of ``compress=1`` and ``decompress=1``.
"""
