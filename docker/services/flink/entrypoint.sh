#!/usr/bin/env bash
# Flink: FLINK_ROLE is jobmanager, taskmanager or sql-gateway.
#   JAVA_HOME, FLINK_HOME, FLINK_DATA_DIR (checkpoints; the same files for all three), RUN_DIR, FLINK_*_PORT,
#   FLINK_{JOBMANAGER,TASKMANAGER}_MEMORY, FLINK_GATEWAY_HEAP, FLINK_TASK_SLOTS, FLINK_CHECKPOINT_INTERVAL
#   FLINK_HOST, the name by which the others reach this one; FLINK_BIND, where it listens (default FLINK_HOST);
#   FLINK_JOBMANAGER_HOST, the job manager's name (default FLINK_HOST)
#   FLINK_PROMETHEUS_PORT, optional: where Prometheus reads its metrics
#   FLINK_TMP_DIR, optional: what is spilled and unpacked, in a folder of its own that is emptied at start (else in /tmp)
#   LAKE_S3_REGION, LAKE_S3_ACCESS_KEY_FILE, LAKE_S3_SECRET_KEY_FILE
#   KAFKA_FLINK_PASSWORD_FILE, optional: of Kafka's user KAFKA_FLINK_USER (flink), whom jobs are that say
#   security.protocol=SASL_SSL and sasl.mechanism=KAFKA_SASL_MECHANISM (SCRAM-SHA-512)
#   TLS_*, optional: see lib.sh. With a certificate, job manager and gateway answer to https only.
source "$(dirname "$0")/../common/lib.sh"
need FLINK_ROLE JAVA_HOME FLINK_HOME FLINK_HOST FLINK_DATA_DIR RUN_DIR FLINK_PORT FLINK_JOBMANAGER_RPC_PORT FLINK_TASKMANAGER_RPC_PORT \
    FLINK_TASKMANAGER_DATA_PORT FLINK_BLOB_PORT FLINK_METRICS_PORT FLINK_TASKMANAGER_METRICS_PORT FLINK_GATEWAY_PORT \
    FLINK_JOBMANAGER_MEMORY FLINK_TASKMANAGER_MEMORY FLINK_GATEWAY_HEAP FLINK_TASK_SLOTS FLINK_CHECKPOINT_INTERVAL LAKE_S3_REGION
secret LAKE_S3_ACCESS_KEY LAKE_S3_SECRET_KEY
case $FLINK_ROLE in
    jobmanager | sql-gateway) metrics_port=$FLINK_METRICS_PORT ;;
    taskmanager) metrics_port=$FLINK_TASKMANAGER_METRICS_PORT ;;
    *) die "FLINK_ROLE=$FLINK_ROLE: must be jobmanager, taskmanager or sql-gateway" ;;
esac
export FLINK_BIND=${FLINK_BIND:-$FLINK_HOST} FLINK_JOBMANAGER_HOST=${FLINK_JOBMANAGER_HOST:-$FLINK_HOST}
export FLINK_OWN_METRICS_PORT=$metrics_port
# Jobs are spread over task managers, where there is more than one.
export FLINK_BALANCE=NONE
! profile ha || FLINK_BALANCE=SLOTS
FLINK_REPORTER=
[ -z "${FLINK_PROMETHEUS_PORT:-}" ] || FLINK_REPORTER=", reporters: prom, reporter: {prom: {factory: {class: \
org.apache.flink.metrics.prometheus.PrometheusReporterFactory}, port: $FLINK_PROMETHEUS_PORT}}"
export FLINK_REPORTER
export AWS_REGION=$LAKE_S3_REGION AWS_ACCESS_KEY_ID=$LAKE_S3_ACCESS_KEY AWS_SECRET_ACCESS_KEY=$LAKE_S3_SECRET_KEY
export FLINK_CONF_DIR=$RUN_DIR/conf FLINK_LOG_DIR=$RUN_DIR/log FLINK_PID_DIR=$RUN_DIR HADOOP_CONF_DIR=
mkdir -p "$FLINK_CONF_DIR" "$FLINK_LOG_DIR" "$FLINK_DATA_DIR/checkpoints"

java_options=
if [ -n "${FLINK_TMP_DIR:-}" ]; then
    FLINK_TMP_DIR+=/$FLINK_ROLE-$FLINK_HOST
    rm -rf "$FLINK_TMP_DIR"
    mkdir -p "$FLINK_TMP_DIR"
    java_options=-Djava.io.tmpdir=$FLINK_TMP_DIR
fi
export FLINK_TMP_DIR=${FLINK_TMP_DIR:-/tmp}
if [ -n "${KAFKA_FLINK_PASSWORD_FILE:-}" ]; then
    secret KAFKA_FLINK_PASSWORD
    KAFKA_FLINK_PASSWORD=${KAFKA_FLINK_PASSWORD//\\/\\\\}
    export KAFKA_FLINK_PASSWORD=${KAFKA_FLINK_PASSWORD//\"/\\\"}
    KAFKA_FLINK_USER=${KAFKA_FLINK_USER:-flink}
    kafka_login
    render "$here/config/jaas.conf.template" "$RUN_DIR/jaas.conf"
    unset KAFKA_FLINK_PASSWORD
    java_options+=" -Djava.security.auth.login.config=$RUN_DIR/jaas.conf"
fi
export FLINK_JAVA_OPTIONS=$java_options
render "$here/config/config.yaml.template" "$FLINK_CONF_DIR/config.yaml"
render "$here/config/log4j.properties.template" "$FLINK_CONF_DIR/log4j-console.properties"
if tls; then
    need TLS_TRUSTSTORE_FILE
    export FLINK_KEYSTORE=$RUN_DIR/keystore.p12
    FLINK_KEYSTORE_PASSWORD=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
    export FLINK_KEYSTORE_PASSWORD
    (umask 077 && openssl pkcs12 -export -in "$TLS_CERT_FILE" -inkey "$TLS_KEY_FILE" -out "$FLINK_KEYSTORE" \
        -passout env:FLINK_KEYSTORE_PASSWORD) || die "TLS_CERT_FILE=$TLS_CERT_FILE and TLS_KEY_FILE=$TLS_KEY_FILE do not fit together"
    render "$here/config/tls.yaml.template" "$RUN_DIR/tls.yaml"
    cat "$RUN_DIR/tls.yaml" >>"$FLINK_CONF_DIR/config.yaml"
    unset FLINK_KEYSTORE_PASSWORD
fi
case $FLINK_ROLE in
    jobmanager) exec "$FLINK_HOME/bin/jobmanager.sh" start-foreground ;;
    taskmanager)
        wait_for "$FLINK_JOBMANAGER_HOST" "$FLINK_JOBMANAGER_RPC_PORT" 120
        exec "$FLINK_HOME/bin/taskmanager.sh" start-foreground
        ;;
    sql-gateway)
        export JVM_ARGS="-Xmx$FLINK_GATEWAY_HEAP -XX:+UseSerialGC"
        wait_for "$FLINK_JOBMANAGER_HOST" "$FLINK_PORT" 120
        exec "$FLINK_HOME/bin/sql-gateway.sh" start-foreground
        ;;
esac
