# Sourced by the entrypoints of proxies, after common/lib.sh.
#   backend PORT HOST...   sets PROXY_SERVERS: the lines of a backend whose servers speak TLS at PORT, each by its own name
#   serve                  run HAProxy with config/proxy.cfg.template, and the caller's config/haproxy.cfg.template after it
#   RUN_DIR, TLS_CERT_FILE, TLS_KEY_FILE, TLS_CA_FILE
#   HAPROXY_STATS_PORT     (default 8404)
#   HAPROXY_DNS            where names of containers are looked up (default 127.0.0.11:53, Docker's)
: "${HAPROXY_STATS_PORT:=8404}" "${HAPROXY_DNS:=127.0.0.11:53}"

backend() {
    local port=$1 host
    PROXY_SERVERS=
    for host in "${@:2}"; do
        [[ $host =~ ^[A-Za-z0-9][A-Za-z0-9.-]*$ ]] || die "$host is not a host name"
        PROXY_SERVERS+="    server $host $host:$port sni str($host) verifyhost $host"$'\n'
    done
}

serve() {
    need RUN_DIR TLS_CERT_FILE
    (umask 077 && cat "$TLS_CERT_FILE" "$TLS_KEY_FILE" >"$RUN_DIR/tls.pem")
    render "$here/../haproxy/config/proxy.cfg.template" "$RUN_DIR/haproxy.cfg"
    append "$here/config/haproxy.cfg.template" "$RUN_DIR/haproxy.cfg"
    echo "http://127.0.0.1:$HAPROXY_STATS_PORT/healthz" >"$RUN_DIR/health"
    exec haproxy -W -db -q -f "$RUN_DIR/haproxy.cfg"
}
