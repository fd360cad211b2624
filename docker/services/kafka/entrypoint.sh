#!/usr/bin/env bash
# Kafka in KRaft mode, broker and controller in one process. The log folder is formatted at first start.
#   JAVA_HOME, KAFKA_LIBS, KAFKA_HOST, KAFKA_PORT, KAFKA_CONTROLLER_PORT, KAFKA_DATA_DIR, KAFKA_HEAP, KAFKA_RETENTION_HOURS, RUN_DIR
source "$(dirname "$0")/../common/lib.sh"
need JAVA_HOME KAFKA_LIBS KAFKA_HOST KAFKA_PORT KAFKA_CONTROLLER_PORT KAFKA_DATA_DIR KAFKA_HEAP KAFKA_RETENTION_HOURS RUN_DIR
render "$here/config/server.properties.template" "$RUN_DIR/server.properties"
render "$here/config/log4j2.yaml.template" "$RUN_DIR/log4j2.yaml"
mkdir -p "$KAFKA_DATA_DIR"
java=("$JAVA_HOME/bin/java" "-Dlog4j2.configurationFile=$RUN_DIR/log4j2.yaml" "-Dkafka.logs.dir=$RUN_DIR" -cp "$KAFKA_LIBS/*")
if [ ! -f "$KAFKA_DATA_DIR/meta.properties" ]; then
    id=$("${java[@]}" kafka.tools.StorageTool random-uuid 2>/dev/null | tail -n 1)
    "${java[@]}" kafka.tools.StorageTool format -t "$id" -c "$RUN_DIR/server.properties" --ignore-formatted
fi
exec "${java[@]}" "-Xmx$KAFKA_HEAP" -XX:+UseG1GC -XX:+ExitOnOutOfMemoryError kafka.Kafka "$RUN_DIR/server.properties"
