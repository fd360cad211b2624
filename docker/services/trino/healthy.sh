#!/usr/bin/env bash
# For HEALTHCHECK: whether Trino answers and has started.
set -euo pipefail
scheme=http
[ -z "${TLS_CERT_FILE:-}" ] || scheme=https
curl --silent --fail --http1.1 --max-time 5 ${TLS_CA_FILE:+--cacert "$TLS_CA_FILE"} "$scheme://localhost:$TRINO_PORT/v1/info" | grep -q '"starting":false'
