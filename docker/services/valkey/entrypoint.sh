#!/usr/bin/env bash
# Valkey, which keeps what it is told on disk within a second. It speaks TLS alone.
#   VALKEY_DATA_DIR, VALKEY_PORT, RUN_DIR
#   VALKEY_PASSWORD_FILE  which every client must know
#   TLS_CERT_FILE, TLS_KEY_FILE, TLS_CA_FILE
source "$(dirname "$0")/../common/lib.sh"
need VALKEY_DATA_DIR VALKEY_PORT RUN_DIR TLS_CERT_FILE
secret VALKEY_PASSWORD
[[ $VALKEY_PASSWORD != *[!A-Za-z0-9._~-]* ]] || die "VALKEY_PASSWORD_FILE=$VALKEY_PASSWORD_FILE: it may have letters, digits and . _ ~ - only"
render "$here/config/valkey.conf.template" "$RUN_DIR/valkey.conf"
unset VALKEY_PASSWORD
exec valkey-server "$RUN_DIR/valkey.conf"
