#!/usr/bin/env bash
# ClickHouse: the server found on the machine (CLICKHOUSE_BIN, or on PATH), else its engine behind an HTTP front.
#   CLICKHOUSE_HOST, CLICKHOUSE_PORT, CLICKHOUSE_USER, CLICKHOUSE_PASSWORD_FILE, CLICKHOUSE_DATA_DIR, RUN_DIR
#   CLICKHOUSE_MEMORY_BYTES (default 1500000000), CHDB_PYTHON (where there is no server)
#   LAKE_S3_ENDPOINT, LAKE_S3_REGION, LAKE_S3_ACCESS_KEY_FILE, LAKE_S3_SECRET_KEY_FILE
source "$(dirname "$0")/../common/lib.sh"
need CLICKHOUSE_HOST CLICKHOUSE_PORT CLICKHOUSE_USER CLICKHOUSE_DATA_DIR RUN_DIR LAKE_S3_ENDPOINT LAKE_S3_REGION
secret CLICKHOUSE_PASSWORD LAKE_S3_ACCESS_KEY LAKE_S3_SECRET_KEY
export CLICKHOUSE_MEMORY_BYTES=${CLICKHOUSE_MEMORY_BYTES:-1500000000}

xml() { # VAR...: escape each for XML
    local name
    for name in "$@"; do
        printf -v "$name" %s "$(sed -e 's/&/\&amp;/g' -e 's/</\&lt;/g' -e 's/>/\&gt;/g' <<<"${!name}")"
    done
}

mkdir -p "$RUN_DIR" "$CLICKHOUSE_DATA_DIR"
chmod 700 "$RUN_DIR"
config=$RUN_DIR/config
CLICKHOUSE_PASSWORD_SHA256=$(printf %s "$CLICKHOUSE_PASSWORD" | sha256sum)
export CLICKHOUSE_PASSWORD_SHA256=${CLICKHOUSE_PASSWORD_SHA256%% *}
xml LAKE_S3_ACCESS_KEY LAKE_S3_SECRET_KEY
render "$here/config/lake.xml.template" "$config/config.d/lake.xml"

server=${CLICKHOUSE_BIN:-$(command -v clickhouse-server || command -v clickhouse || true)}
if [ -n "$server" ]; then
    export CLICKHOUSE_USERS_FILE=$config/users.xml
    render "$here/config/users.xml.template" "$CLICKHOUSE_USERS_FILE"
    render "$here/config/config.xml.template" "$config/config.xml"
    [ "$(basename "$server")" = clickhouse ] && set -- server || set --
    set -- "$server" "$@" --config-file="$config/config.xml"
else
    need CHDB_PYTHON
    root=$(cd "$here/../../.." && pwd)
    export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
    set -- "$CHDB_PYTHON" -m include.serving.chdb_front --host "$CLICKHOUSE_HOST" --port "$CLICKHOUSE_PORT" \
        --path "$CLICKHOUSE_DATA_DIR/chdb" --config-file "$config/config.d/lake.xml"
fi
unset CLICKHOUSE_PASSWORD CLICKHOUSE_PASSWORD_SHA256 LAKE_S3_ACCESS_KEY LAKE_S3_SECRET_KEY
cd "$RUN_DIR"
exec "$@"
