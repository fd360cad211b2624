#!/usr/bin/env bash
# ClickHouse: the server found on the machine (CLICKHOUSE_BIN, or on PATH), else its engine behind an HTTP front.
#   CLICKHOUSE_HOST, CLICKHOUSE_BIND (where it listens; default CLICKHOUSE_HOST), CLICKHOUSE_PORT (HTTP), CLICKHOUSE_DATA_DIR, RUN_DIR
#   CLICKHOUSE_USER, CLICKHOUSE_PASSWORD_FILE, CLICKHOUSE_MEMORY_BYTES (default 1500000000)
#   CLICKHOUSE_TCP_PORT, optional: the native protocol too (only a server has it), CHDB_PYTHON (where there is no server)
#   LAKE_S3_ENDPOINT, LAKE_S3_REGION, LAKE_S3_ACCESS_KEY_FILE, LAKE_S3_SECRET_KEY_FILE
#   TLS_*, optional: see lib.sh
source "$(dirname "$0")/../common/lib.sh"
need CLICKHOUSE_HOST CLICKHOUSE_PORT CLICKHOUSE_USER CLICKHOUSE_DATA_DIR RUN_DIR LAKE_S3_ENDPOINT LAKE_S3_REGION
secret CLICKHOUSE_PASSWORD LAKE_S3_ACCESS_KEY LAKE_S3_SECRET_KEY
export CLICKHOUSE_MEMORY_BYTES=${CLICKHOUSE_MEMORY_BYTES:-1500000000} CLICKHOUSE_BIND=${CLICKHOUSE_BIND:-$CLICKHOUSE_HOST}

xml() { # VAR...: escape each for XML
    local name
    for name in "$@"; do
        printf -v "$name" %s "$(sed -e 's/&/\&amp;/g' -e 's/</\&lt;/g' -e 's/>/\&gt;/g' <<<"${!name}")"
    done
}

mkdir -p "$RUN_DIR" "$CLICKHOUSE_DATA_DIR"
chmod 700 "$RUN_DIR"
config=$RUN_DIR/config
rm -rf "$config"
CLICKHOUSE_PASSWORD_SHA256=$(printf %s "$CLICKHOUSE_PASSWORD" | sha256sum)
export CLICKHOUSE_PASSWORD_SHA256=${CLICKHOUSE_PASSWORD_SHA256%% *}
xml LAKE_S3_ACCESS_KEY LAKE_S3_SECRET_KEY
render "$here/config/lake.xml.template" "$config/config.d/lake.xml"

server=${CLICKHOUSE_BIN:-$(command -v clickhouse-server || command -v clickhouse || true)}
if [ -n "$server" ]; then
    export CLICKHOUSE_USERS_FILE=$config/users.xml
    render "$here/config/users.xml.template" "$CLICKHOUSE_USERS_FILE"
    export CLICKHOUSE_HTTP=http_port CLICKHOUSE_TCP=tcp_port
    if tls; then
        CLICKHOUSE_HTTP=https_port CLICKHOUSE_TCP=tcp_port_secure
        render "$here/config/tls.xml.template" "$config/config.d/tls.xml"
    fi
    render "$here/config/config.xml.template" "$config/config.xml"
    [ -z "${CLICKHOUSE_TCP_PORT:-}" ] || render "$here/config/tcp.xml.template" "$config/config.d/tcp.xml"
    [ "$(basename "$server")" = clickhouse ] && set -- server || set --
    set -- "$server" "$@" --config-file="$config/config.xml"
else
    need CHDB_PYTHON
    root=$(cd "$here/../../.." && pwd)
    export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
    set -- "$CHDB_PYTHON" -m include.serving.chdb_front --host "$CLICKHOUSE_BIND" --port "$CLICKHOUSE_PORT" \
        --path "$CLICKHOUSE_DATA_DIR/chdb" --config-file "$config/config.d/lake.xml"
fi
unset CLICKHOUSE_PASSWORD CLICKHOUSE_PASSWORD_SHA256 LAKE_S3_ACCESS_KEY LAKE_S3_SECRET_KEY
cd "$RUN_DIR"
exec "$@"
