#!/usr/bin/env bash
# For HEALTHCHECK: whether Airflow's API server says that the part of Airflow which runs in this container does its work.
set -uo pipefail
scheme=http
[ -z "${TLS_CA_FILE:-}" ] || scheme=https
host=$AIRFLOW_HOST
case $AIRFLOW_ROLE in
    api-server)
        part=metadatabase
        [ "$scheme" = http ] || host=localhost
        ;;
    *) part=${AIRFLOW_ROLE//-/_} ;;
esac
if [[ $AIRFLOW_ROLE =~ ^(scheduler|worker)$ && ,${SHUDL_PROFILES:-}, == *,ha,* ]]; then # of which there are two
    exec curl --silent --show-error --fail --max-time 5 http://127.0.0.1:8974/health
fi
url=$scheme://$host:$AIRFLOW_PORT/api/v2/monitor/health
said=$(curl --silent --show-error --fail --max-time 5 ${TLS_CA_FILE:+--cacert "$TLS_CA_FILE"} "$url" 2>&1)
[[ $said =~ \"$part\":\{[^}]*\"status\":\"healthy\" ]] || {
    echo "$said"
    exit 1
}
