#!/usr/bin/env bash
# Keycloak: who may sign in. Its database is on the PostgreSQL cluster.
#   KEYCLOAK_HOME, RUN_DIR, KEYCLOAK_HEAP (e.g. 512m)
#   KEYCLOAK_URL              where browsers find it, e.g. https://localhost:8543; containers may use its own name too
#   KEYCLOAK_DB_ADDRESS (host:port), KEYCLOAK_DB_PASSWORD_FILE   (role and database: keycloak)
#   KEYCLOAK_ADMIN_PASSWORD_FILE   of the user admin, made at the first start only
#   TLS_CERT_FILE, TLS_KEY_FILE, TLS_CA_FILE
#   KEYCLOAK_PORT, KEYCLOAK_MANAGEMENT_PORT   (default 8543, 9100: health and metrics)
source "$(dirname "$0")/../common/lib.sh"
need KEYCLOAK_HOME RUN_DIR KEYCLOAK_HEAP KEYCLOAK_URL KEYCLOAK_DB_ADDRESS TLS_CERT_FILE TLS_KEY_FILE TLS_CA_FILE
secret KEYCLOAK_DB_PASSWORD KEYCLOAK_ADMIN_PASSWORD
: "${KEYCLOAK_PORT:=8543}" "${KEYCLOAK_MANAGEMENT_PORT:=9100}"
for name in KEYCLOAK_DB_PASSWORD KEYCLOAK_ADMIN_PASSWORD; do
    [[ ${!name} =~ ^[[:graph:]]+$ && ${!name} != *['\$']* ]] || die "${name}_FILE: the password has a space, \\ or \$ in it"
done
render "$here/config/keycloak.conf.template" "$RUN_DIR/keycloak.conf"
unset KEYCLOAK_DB_PASSWORD KEYCLOAK_ADMIN_PASSWORD
export JAVA_OPTS_KC_HEAP="-Xms64m -Xmx$KEYCLOAK_HEAP"
exec "$KEYCLOAK_HOME/bin/kc.sh" --config-file="$RUN_DIR/keycloak.conf" start --optimized
