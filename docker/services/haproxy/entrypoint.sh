#!/usr/bin/env bash
# HAProxy: the one address of PostgreSQL. It asks each member's Patroni which one is the primary; TLS passes through.
#   PATRONI_MEMBERS           members' names, and host names, e.g. "patroni1 patroni2"
#   RUN_DIR
#   TLS_CA_FILE               of the members' REST certificates
#   HAPROXY_WRITE_PORT, HAPROXY_READ_PORT, HAPROXY_STATS_PORT   (default 15000, 15001, 8404)
#   HAPROXY_DNS               where names of containers are looked up (default 127.0.0.11:53, Docker's)
source "$(dirname "$0")/../common/lib.sh"
need PATRONI_MEMBERS RUN_DIR TLS_CA_FILE
: "${HAPROXY_WRITE_PORT:=15000}" "${HAPROXY_READ_PORT:=15001}" "${HAPROXY_STATS_PORT:=8404}" "${HAPROXY_DNS:=127.0.0.11:53}"

HAPROXY_SERVERS=
for member in $PATRONI_MEMBERS; do
    [[ $member =~ ^[A-Za-z0-9][A-Za-z0-9.-]*$ ]] || die "PATRONI_MEMBERS=$PATRONI_MEMBERS: $member is not a host name"
    HAPROXY_SERVERS+="    server $member $member:5432 check-sni $member verifyhost $member"$'\n'
done
render "$here/config/haproxy.cfg.template" "$RUN_DIR/haproxy.cfg"
echo "http://127.0.0.1:$HAPROXY_STATS_PORT/healthz" >"$RUN_DIR/health"
exec haproxy -W -db -q -f "$RUN_DIR/haproxy.cfg"
