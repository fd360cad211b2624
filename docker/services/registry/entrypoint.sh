#!/usr/bin/env bash
# Apicurio Registry: schemas, with Confluent's API at /apis/ccompat/v7. Kept in an H2 file, or in PostgreSQL.
#   JAVA_HOME, REGISTRY_HOME, REGISTRY_HOST, REGISTRY_PORT, REGISTRY_MANAGEMENT_PORT, REGISTRY_DATA_DIR, REGISTRY_HEAP, RUN_DIR
#   REGISTRY_BIND    where it listens; REGISTRY_HOST unless set. Health and metrics, at the management port, are without TLS
#   REGISTRY_DB_URL  jdbc:postgresql://… of the database to use, with REGISTRY_DB_USER and REGISTRY_DB_PASSWORD_FILE
source "$(dirname "$0")/../common/lib.sh"
need JAVA_HOME REGISTRY_HOME REGISTRY_HOST REGISTRY_PORT REGISTRY_MANAGEMENT_PORT REGISTRY_DATA_DIR REGISTRY_HEAP RUN_DIR
REGISTRY_BIND=${REGISTRY_BIND:-$REGISTRY_HOST}
properties="$RUN_DIR/config/application.properties"


render "$here/config/application.properties.template" "$properties"
if tls; then
    append "$here/config/tls.properties.template" "$properties"
else
    append "$here/config/plain.properties.template" "$properties"
fi
if [ -n "${REGISTRY_DB_URL:-}" ]; then
    need REGISTRY_DB_USER
    secret REGISTRY_DB_PASSWORD
    export -n REGISTRY_DB_PASSWORD
    append "$here/config/postgresql.properties.template" "$properties"
else
    append "$here/config/h2.properties.template" "$properties"
fi
mkdir -p "$REGISTRY_DATA_DIR"
cd "$RUN_DIR"
exec "$JAVA_HOME/bin/java" "-Xmx$REGISTRY_HEAP" -XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError -jar "$REGISTRY_HOME/quarkus-run.jar"
