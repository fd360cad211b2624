#!/usr/bin/env bash
# PostgreSQL with logical replication. Makes the cluster, one role and its database at first start.
#   POSTGRES_BIN            folder of the server's programs
#   POSTGRES_HOST, _PORT    where it is reached
#   POSTGRES_BIND           where it listens (default POSTGRES_HOST)
#   POSTGRES_DATA_DIR       the cluster
#   POSTGRES_SUPERUSER_PASSWORD_FILE
#   POSTGRES_USER, POSTGRES_DB, POSTGRES_PASSWORD_FILE
#                           role (owner of the database, may replicate) and database made at first start
#   POSTGRES_SHARED_BUFFERS e.g. 128MB
#   TLS_CERT_FILE, TLS_KEY_FILE, TLS_CA_FILE   optional: with them it lets in nobody without TLS
# PostgreSQL refuses root: as root it runs as POSTGRES_OS_USER (default nobody), who gets the right to
# look up paths when the checkout lies in a folder that only root may enter.
source "$(dirname "$0")/../common/lib.sh"
need POSTGRES_BIN POSTGRES_HOST POSTGRES_PORT POSTGRES_DATA_DIR POSTGRES_USER POSTGRES_DB POSTGRES_SHARED_BUFFERS RUN_DIR
secret POSTGRES_SUPERUSER_PASSWORD POSTGRES_PASSWORD
: "${POSTGRES_BIND:=$POSTGRES_HOST}"

drop=()
if [ "$(id -u)" = 0 ]; then
    user=${POSTGRES_OS_USER:-nobody}
    id "$user" >/dev/null 2>&1 || die "POSTGRES_OS_USER=$user: no such user"
    command -v setpriv >/dev/null || die "setpriv (util-linux) is needed to start PostgreSQL as root; or run as another user"
    mkdir -p "$POSTGRES_DATA_DIR"
    chmod 0700 "$POSTGRES_DATA_DIR"
    chown -R "$user:" "$POSTGRES_DATA_DIR"
    base=(setpriv "--reuid=$user" "--regid=$(id -g "$user")" --clear-groups --no-new-privs)
    for caps in "" dac_read_search dac_override; do
        drop=("${base[@]}" ${caps:+"--inh-caps=-all,+$caps" "--ambient-caps=-all,+$caps"})
        ok=yes
        "${drop[@]}" test -x "$POSTGRES_BIN/postgres" -a -w "$POSTGRES_DATA_DIR" 2>/dev/null && break
        ok=no
    done
    [ "$ok" = yes ] || die "user $user cannot reach $POSTGRES_DATA_DIR: move the checkout out of folders closed to others, or do not run as root"
fi

cd "$POSTGRES_DATA_DIR"
if [ ! -f "$POSTGRES_DATA_DIR/.complete" ]; then
    find "$POSTGRES_DATA_DIR" -mindepth 1 -delete
    "${drop[@]}" "$POSTGRES_BIN/initdb" -D "$POSTGRES_DATA_DIR" --username=postgres --encoding=UTF8 --locale-provider=builtin \
        --locale=C.UTF-8 --auth=reject --data-checksums --no-instructions >&2
    # One statement a line: that is how single-user mode reads them.
    "${drop[@]}" "$POSTGRES_BIN/postgres" --single -D "$POSTGRES_DATA_DIR" -c log_statement=none -c log_min_error_statement=panic postgres >/dev/null <<SQL
ALTER ROLE postgres PASSWORD '$POSTGRES_SUPERUSER_PASSWORD';
CREATE ROLE "$POSTGRES_USER" LOGIN REPLICATION PASSWORD '$POSTGRES_PASSWORD';
CREATE DATABASE "$POSTGRES_DB" OWNER "$POSTGRES_USER";
SQL
    "${drop[@]}" touch "$POSTGRES_DATA_DIR/.complete"
fi
unset POSTGRES_SUPERUSER_PASSWORD POSTGRES_PASSWORD

POSTGRES_HBA=host POSTGRES_TLS="ssl = off"
if tls; then
    POSTGRES_HBA=hostssl
    POSTGRES_TLS="ssl = on
ssl_min_protocol_version = 'TLSv1.3'
ssl_cert_file = '$RUN_DIR/tls.crt'
ssl_key_file = '$RUN_DIR/tls.key'"
    # The server takes its key only from a file that is its own and that nobody else may read.
    owner=${user:-$(id -u)}
    install -o "$owner" -m 0600 "$TLS_CERT_FILE" "$RUN_DIR/tls.crt"
    install -o "$owner" -m 0600 "$TLS_KEY_FILE" "$RUN_DIR/tls.key"
fi
render "$here/config/postgresql.conf.template" "$RUN_DIR/postgresql.conf"
render "$here/config/pg_hba.conf.template" "$RUN_DIR/pg_hba.conf"
if [ "$(id -u)" = 0 ]; then
    # The server re-reads both at reload, as its own user.
    install -o "$user" -m 0600 "$RUN_DIR/postgresql.conf" "$POSTGRES_DATA_DIR/postgresql.conf"
    install -o "$user" -m 0600 "$RUN_DIR/pg_hba.conf" "$POSTGRES_DATA_DIR/pg_hba.conf"
else
    install -m 0600 "$RUN_DIR/postgresql.conf" "$RUN_DIR/pg_hba.conf" "$POSTGRES_DATA_DIR/"
fi
exec "${drop[@]}" "$POSTGRES_BIN/postgres" -D "$POSTGRES_DATA_DIR"
