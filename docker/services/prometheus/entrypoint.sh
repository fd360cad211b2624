#!/usr/bin/env bash
# Prometheus, with three exporters that listen on 127.0.0.1 alone: of PostgreSQL, of this machine, and of what answers to
# probes (blackbox). When one of the four ends, all do, and the container starts again.
#   PROMETHEUS_DATA_DIR, RUN_DIR
#   TLS_CA_FILE                 of the services' certificates
#   TRINO_PASSWORD_FILE         of Trino's user shudl, who may read its metrics
#   POSTGRES_EXPORTER_PASSWORD_FILE
#                               of the role POSTGRES_EXPORTER_USER (default exporter), a member of pg_monitor
#   POSTGRES_HOST, POSTGRES_PORT (default haproxy, 15000), POSTGRES_SSLMODE (default verify-ca)
#   PROMETHEUS_PORT             (default 9090)
#   PROMETHEUS_RETENTION, PROMETHEUS_RETENTION_SIZE
#                               how long metrics are kept, and how much of them at most (default 15d, 4GB)
#   PROMETHEUS_SCRAPE_INTERVAL  (default 15s)
source "$(dirname "$0")/../common/lib.sh"
need PROMETHEUS_DATA_DIR RUN_DIR TLS_CA_FILE TRINO_PASSWORD_FILE
[ -r "$TRINO_PASSWORD_FILE" ] || die "TRINO_PASSWORD_FILE=$TRINO_PASSWORD_FILE cannot be read"
secret POSTGRES_EXPORTER_PASSWORD
unset POSTGRES_EXPORTER_PASSWORD # the exporter reads the file
: "${POSTGRES_EXPORTER_USER:=exporter}" "${POSTGRES_HOST:=haproxy}" "${POSTGRES_PORT:=15000}" "${POSTGRES_SSLMODE:=verify-ca}"
: "${PROMETHEUS_PORT:=9090}" "${PROMETHEUS_RETENTION:=15d}" "${PROMETHEUS_RETENTION_SIZE:=4GB}" "${PROMETHEUS_SCRAPE_INTERVAL:=15s}"
RULES_DIR=$here/config/rules
render "$here/config/prometheus.yml.template" "$RUN_DIR/prometheus.yml"
render "$here/config/blackbox.yml.template" "$RUN_DIR/blackbox.yml"

prometheus-blackbox-exporter --config.file="$RUN_DIR/blackbox.yml" --web.listen-address=127.0.0.1:9115 --log.level=warn --log.prober=debug &
# Of the file systems only the one of /data, where Docker keeps its volumes.
prometheus-node-exporter --web.listen-address=127.0.0.1:9100 --log.level=warn --collector.disable-defaults \
    --collector.cpu --collector.diskstats --collector.filesystem --collector.loadavg --collector.meminfo --collector.pressure \
    --collector.stat --collector.vmstat --collector.filesystem.mount-points-include="^$PROMETHEUS_DATA_DIR\$" &
DATA_SOURCE_URI="$POSTGRES_HOST:$POSTGRES_PORT/postgres?sslmode=$POSTGRES_SSLMODE&sslrootcert=$TLS_CA_FILE&connect_timeout=5" \
    DATA_SOURCE_USER=$POSTGRES_EXPORTER_USER DATA_SOURCE_PASS_FILE=$POSTGRES_EXPORTER_PASSWORD_FILE \
    prometheus-postgres-exporter --web.listen-address=127.0.0.1:9187 --log.level=warn \
    --no-collector.stat_user_tables --no-collector.statio_user_tables &
prometheus --config.file="$RUN_DIR/prometheus.yml" --web.listen-address="0.0.0.0:$PROMETHEUS_PORT" --log.level=warn \
    --storage.tsdb.path="$PROMETHEUS_DATA_DIR" --storage.tsdb.retention.time="$PROMETHEUS_RETENTION" \
    --storage.tsdb.retention.size="$PROMETHEUS_RETENTION_SIZE" &

trap 'kill $(jobs -p) 2>/dev/null || true' TERM INT EXIT
code=0
wait -n || code=$?
kill $(jobs -p) 2>/dev/null || true
wait || true
exit "$code"
