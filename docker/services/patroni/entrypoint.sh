#!/usr/bin/env bash
# One member of the PostgreSQL cluster, kept by Patroni: one primary, the others synchronous standbys.
#   PATRONI_NAME              this member, and its host name
#   PATRONI_MEMBERS           all members' names, e.g. "patroni1 patroni2"
#   ETCD_MEMBERS              where they agree who is the primary, e.g. "etcd1 etcd2 etcd3"
#   PATRONI_DATA_DIR, RUN_DIR, POSTGRES_BIN
#   POSTGRES_SHARED_BUFFERS   (default 128MB)
#   POSTGRES_MAX_CONNECTIONS  of a new cluster (default 200); later: patronictl edit-config
#   TLS_CERT_FILE, TLS_KEY_FILE, TLS_CA_FILE   for PostgreSQL, the REST API, and towards etcd
#   POSTGRES_SUPERUSER_PASSWORD_FILE, POSTGRES_REPLICATOR_PASSWORD_FILE, POSTGRES_REWINDER_PASSWORD_FILE, PATRONI_REST_PASSWORD_FILE
#   POSTGRES_{FLIGHTS,NESSIE,REGISTRY,KEYCLOAK,EXPORTER,FENCER}_PASSWORD_FILE   read by databases.py
source "$(dirname "$0")/../common/lib.sh"
need PATRONI_NAME PATRONI_MEMBERS ETCD_MEMBERS PATRONI_DATA_DIR RUN_DIR POSTGRES_BIN \
    TLS_CERT_FILE TLS_KEY_FILE TLS_CA_FILE
secret POSTGRES_SUPERUSER_PASSWORD POSTGRES_REPLICATOR_PASSWORD POSTGRES_REWINDER_PASSWORD PATRONI_REST_PASSWORD
secret POSTGRES_FLIGHTS_PASSWORD POSTGRES_NESSIE_PASSWORD POSTGRES_REGISTRY_PASSWORD POSTGRES_KEYCLOAK_PASSWORD \
    POSTGRES_EXPORTER_PASSWORD POSTGRES_FENCER_PASSWORD
: "${POSTGRES_SHARED_BUFFERS:=128MB}" "${POSTGRES_MAX_CONNECTIONS:=200}"
[[ " $PATRONI_MEMBERS " == *" $PATRONI_NAME "* ]] || die "PATRONI_NAME=$PATRONI_NAME is not one of PATRONI_MEMBERS=$PATRONI_MEMBERS"

quoted() { # $1 as a YAML string
    printf "'%s'" "${1//\'/\'\'}"
}

# A change reaches logical consumers only when every other member has it: else a failover would take it back.
PATRONI_OTHERS=
for member in $PATRONI_MEMBERS; do
    [ "$member" = "$PATRONI_NAME" ] || PATRONI_OTHERS+="${PATRONI_OTHERS:+,}$member"
done
PATRONI_ETCD=
for member in $ETCD_MEMBERS; do
    PATRONI_ETCD+="${PATRONI_ETCD:+, }$member:2379"
done
PATRONI_OS_USER=$(id -un) PATRONI_SCRIPTS=$here
for name in POSTGRES_SUPERUSER_PASSWORD POSTGRES_REPLICATOR_PASSWORD POSTGRES_REWINDER_PASSWORD PATRONI_REST_PASSWORD; do
    declare "$name=$(quoted "${!name}")"
done

umask 077
mkdir -p "$PATRONI_DATA_DIR" "$RUN_DIR/tls"
# PostgreSQL takes its key only from a file that nobody else may read.
install -m 0600 "$TLS_CERT_FILE" "$RUN_DIR/tls/tls.crt"
install -m 0600 "$TLS_KEY_FILE" "$RUN_DIR/tls/tls.key"
install -m 0600 "$TLS_CA_FILE" "$RUN_DIR/tls/ca.crt"
render "$here/config/patroni.yml.template" "$RUN_DIR/patroni.yml"

# Patroni would read PATRONI_* too.
for name in "${!PATRONI_@}" "${!POSTGRES_@}"; do
    [[ $name == POSTGRES_*_FILE ]] || unset "$name"
done
exec patroni "$RUN_DIR/patroni.yml"
