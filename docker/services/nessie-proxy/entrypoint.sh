#!/usr/bin/env bash
# HAProxy: the lake's catalogue for engines that are elsewhere. Who shows the token may read every branch of Nessie's Iceberg
# catalogue and write to LAKE_BRANCH, and nothing else of Nessie.
#   NESSIE_HOST, NESSIE_PORT  where Nessie is; this listens at the same port
#   NESSIE_TOKEN_FILE         what engines show as their bearer token
#   LAKE_BRANCH
#   and what haproxy/proxy.sh names
source "$(dirname "$0")/../common/lib.sh"
source "$here/../haproxy/proxy.sh"
need NESSIE_HOST NESSIE_PORT LAKE_BRANCH
[[ $LAKE_BRANCH =~ ^[A-Za-z0-9_-]+$ ]] || die "LAKE_BRANCH=$LAKE_BRANCH: must be letters, digits, _ and -"
secret NESSIE_TOKEN
TOKEN_SHA256=$(printf %s "$NESSIE_TOKEN" | sha256sum | cut -d ' ' -f 1)
unset NESSIE_TOKEN
backend "$NESSIE_PORT" "$NESSIE_HOST"
serve
