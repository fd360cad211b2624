#!/usr/bin/env bash
# For HEALTHCHECK: whether it answers a client that knows the password.
set -euo pipefail
REDISCLI_AUTH=$(<"$VALKEY_PASSWORD_FILE")
export REDISCLI_AUTH VALKEYCLI_AUTH=$REDISCLI_AUTH
timeout 5 valkey-cli --tls --cacert "$TLS_CA_FILE" -h localhost -p "$VALKEY_PORT" ping | grep -q PONG
