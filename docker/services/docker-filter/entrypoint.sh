#!/usr/bin/env bash
# The Docker API for Airflow: start, stop, restart, inspect and logs of this project's containers, and nothing else.
#   FILTER_CONTAINERS         names of the containers, e.g. "shudl-kafka-1 shudl-trino-1"
#   RUN_DIR
#   FILTER_SOCKET             Docker's socket (default /var/run/docker.sock)
#   FILTER_PORT               (default 2375)
source "$(dirname "$0")/../common/lib.sh"
need FILTER_CONTAINERS RUN_DIR
: "${FILTER_SOCKET:=/var/run/docker.sock}" "${FILTER_PORT:=2375}"
[ -S "$FILTER_SOCKET" ] || die "FILTER_SOCKET=$FILTER_SOCKET is not a socket: mount Docker's"
[ -w "$FILTER_SOCKET" ] || die "FILTER_SOCKET=$FILTER_SOCKET is closed to this user (groups: $(id -G)): add its group, $(stat -c %g "$FILTER_SOCKET")"

# What may be asked for is listed word by word: whatever is written in another way is not in the list.
lists=("$RUN_DIR/inspect" "$RUN_DIR/logs" "$RUN_DIR/stop" "$RUN_DIR/start")
printf '' | tee "${lists[@]}" >/dev/null
for container in $FILTER_CONTAINERS; do
    [[ $container =~ ^[A-Za-z0-9][A-Za-z0-9_.-]*$ ]] || die "FILTER_CONTAINERS: $container is not a container's name"
    [[ ! $container =~ ^[0-9a-f]+$ ]] || die "FILTER_CONTAINERS: Docker could take $container for the beginning of an id"
    echo "/containers/$container/json" >>"$RUN_DIR/inspect"
    echo "/containers/$container/logs" >>"$RUN_DIR/logs"
    printf '/containers/%s/stop\n/containers/%s/restart\n' "$container" "$container" >>"$RUN_DIR/stop"
    echo "/containers/$container/start" >>"$RUN_DIR/start"
done
# A log is not followed; neither names nor values need encoding.
FILTER_LOGS_QUERY='((stdout|stderr|timestamps|tail|since|until)=[A-Za-z0-9.:-]*|follow=(0|false))'
render "$here/config/haproxy.cfg.template" "$RUN_DIR/haproxy.cfg"
echo "http://127.0.0.1:$FILTER_PORT/_ping" >"$RUN_DIR/health"
exec haproxy -W -db -q -f "$RUN_DIR/haproxy.cfg"
