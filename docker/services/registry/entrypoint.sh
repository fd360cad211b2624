#!/usr/bin/env bash
# Apicurio Registry: schemas, with Confluent's API at /apis/ccompat/v7. Kept in an H2 file.
#   JAVA_HOME, REGISTRY_HOME, REGISTRY_HOST, REGISTRY_PORT, REGISTRY_MANAGEMENT_PORT, REGISTRY_DATA_DIR, REGISTRY_HEAP, RUN_DIR
source "$(dirname "$0")/../common/lib.sh"
need JAVA_HOME REGISTRY_HOME REGISTRY_HOST REGISTRY_PORT REGISTRY_MANAGEMENT_PORT REGISTRY_DATA_DIR REGISTRY_HEAP RUN_DIR
render "$here/config/application.properties.template" "$RUN_DIR/config/application.properties"
mkdir -p "$REGISTRY_DATA_DIR"
cd "$RUN_DIR"
exec "$JAVA_HOME/bin/java" "-Xmx$REGISTRY_HEAP" -XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError -jar "$REGISTRY_HOME/quarkus-run.jar"
