#!/usr/bin/env bash
# For HEALTHCHECK: whether the broker takes connections, with a certificate that holds, and its users have their passwords.
set -u
[ ! -e "$RUN_DIR/renewing" ] || { echo "the users' passwords are being set"; exit 1; }
if [ -n "${TLS_CERT_FILE:-}" ]; then
    exec timeout 5 openssl s_client -connect "localhost:$KAFKA_PORT" -CAfile "$TLS_CA_FILE" -verify_hostname localhost -verify_return_error -brief </dev/null
fi
exec 3<>"/dev/tcp/localhost/$KAFKA_PORT"
