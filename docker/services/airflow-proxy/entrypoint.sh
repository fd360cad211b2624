#!/usr/bin/env bash
# HAProxy: the one address of Airflow's API servers. A request goes to one that answers; TLS ends here and begins anew.
#   AIRFLOW_API_SERVERS  their host names; the first is there without the profile ha
#   AIRFLOW_PORT         where they listen, and this too
#   RUN_DIR, TLS_CERT_FILE, TLS_KEY_FILE, TLS_CA_FILE
#   HAPROXY_STATS_PORT   (default 8404)
#   HAPROXY_DNS          where names of containers are looked up (default 127.0.0.11:53, Docker's)
source "$(dirname "$0")/../common/lib.sh"
need AIRFLOW_API_SERVERS AIRFLOW_PORT RUN_DIR TLS_CERT_FILE
: "${HAPROXY_STATS_PORT:=8404}" "${HAPROXY_DNS:=127.0.0.11:53}"

read -ra hosts <<<"$AIRFLOW_API_SERVERS"
profile ha || hosts=("${hosts[0]}")
PROXY_SERVERS=
for host in "${hosts[@]}"; do
    [[ $host =~ ^[A-Za-z0-9][A-Za-z0-9.-]*$ ]] || die "AIRFLOW_API_SERVERS=$AIRFLOW_API_SERVERS: $host is not a host name"
    PROXY_SERVERS+="    server $host $host:$AIRFLOW_PORT sni str($host) verifyhost $host"$'\n'
done
(umask 077 && cat "$TLS_CERT_FILE" "$TLS_KEY_FILE" >"$RUN_DIR/tls.pem")
render "$here/config/haproxy.cfg.template" "$RUN_DIR/haproxy.cfg"
echo "http://127.0.0.1:$HAPROXY_STATS_PORT/healthz" >"$RUN_DIR/health"
exec haproxy -W -db -q -f "$RUN_DIR/haproxy.cfg"
