#!/usr/bin/env bash
# Nessie: the Iceberg REST catalog. Versions in RocksDB, or in PostgreSQL.
#   JAVA_HOME, NESSIE_JAR, NESSIE_HOST, NESSIE_PORT, NESSIE_MANAGEMENT_PORT, NESSIE_DATA_DIR, NESSIE_HEAP, RUN_DIR
#   NESSIE_BIND    where it listens; NESSIE_HOST unless set. Health and metrics, at the management port, are without TLS
#   NESSIE_DB_URL  jdbc:postgresql://… of the database to use, with NESSIE_DB_USER and NESSIE_DB_PASSWORD_FILE
#   NESSIE_SIGN_IN every request needs a token of Keycloak, and its roles say what it may do: OIDC_URL (the realm), OIDC_ISSUER
#                  (who the token says made it), LAKE_BRANCH, LAKE_PUBLISHED_REF (branches that only admins move)
#   LAKE_WAREHOUSE, LAKE_LOCATION, LAKE_S3_ENDPOINT, LAKE_S3_REGION, LAKE_S3_ACCESS_KEY_FILE, LAKE_S3_SECRET_KEY_FILE
source "$(dirname "$0")/../common/lib.sh"
need JAVA_HOME NESSIE_JAR NESSIE_HOST NESSIE_PORT NESSIE_MANAGEMENT_PORT NESSIE_DATA_DIR NESSIE_HEAP RUN_DIR \
    LAKE_WAREHOUSE LAKE_LOCATION LAKE_S3_ENDPOINT LAKE_S3_REGION
secret LAKE_S3_ACCESS_KEY LAKE_S3_SECRET_KEY
export -n LAKE_S3_ACCESS_KEY LAKE_S3_SECRET_KEY
NESSIE_BIND=${NESSIE_BIND:-$NESSIE_HOST}
properties="$RUN_DIR/config/application.properties"


render "$here/config/application.properties.template" "$properties"
if tls; then
    append "$here/config/tls.properties.template" "$properties"
else
    append "$here/config/plain.properties.template" "$properties"
fi
if [ -n "${NESSIE_DB_URL:-}" ]; then
    need NESSIE_DB_USER
    secret NESSIE_DB_PASSWORD
    export -n NESSIE_DB_PASSWORD
    append "$here/config/postgresql.properties.template" "$properties"
else
    append "$here/config/rocksdb.properties.template" "$properties"
fi
if [ -n "${NESSIE_SIGN_IN:-}" ]; then
    need OIDC_URL OIDC_ISSUER LAKE_BRANCH LAKE_PUBLISHED_REF
    append "$here/config/oidc.properties.template" "$properties"
fi
mkdir -p "$NESSIE_DATA_DIR"
cd "$RUN_DIR"
exec "$JAVA_HOME/bin/java" "-Xmx$NESSIE_HEAP" -XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError -jar "$NESSIE_JAR"
