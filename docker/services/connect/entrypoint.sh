#!/usr/bin/env bash
# Kafka Connect with Debezium's PostgreSQL connector and the Avro converter.
#   JAVA_HOME, KAFKA_LIBS, CONNECT_PLUGINS, CONNECT_HOST, CONNECT_PORT, CONNECT_HEAP, RUN_DIR
#   CONNECT_SECRETS_DIR    files that connector settings may name as ${dir:<folder>:<file>}
#   KAFKA_HOST, KAFKA_PORT
source "$(dirname "$0")/../common/lib.sh"
need JAVA_HOME KAFKA_LIBS CONNECT_PLUGINS CONNECT_HOST CONNECT_PORT CONNECT_HEAP CONNECT_SECRETS_DIR KAFKA_HOST KAFKA_PORT RUN_DIR
render "$here/config/connect.properties.template" "$RUN_DIR/connect.properties"
render "$here/config/log4j2.yaml.template" "$RUN_DIR/log4j2.yaml"
(umask 077 && mkdir -p "$CONNECT_SECRETS_DIR")
wait_for "$KAFKA_HOST" "$KAFKA_PORT" 120
exec "$JAVA_HOME/bin/java" "-Xmx$CONNECT_HEAP" -Duser.timezone=UTC -XX:+UseG1GC -XX:+ExitOnOutOfMemoryError "-Dlog4j2.configurationFile=$RUN_DIR/log4j2.yaml" \
    -cp "$KAFKA_LIBS/*" org.apache.kafka.connect.cli.ConnectDistributed "$RUN_DIR/connect.properties"
