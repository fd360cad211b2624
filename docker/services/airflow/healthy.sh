#!/usr/bin/env bash
# For HEALTHCHECK: whether Airflow's API server says that the part of Airflow which runs in this container does its work.
set -uo pipefail
scheme=http
[ -z "${TLS_CA_FILE:-}" ] || scheme=https
case $AIRFLOW_ROLE in
    api-server) part=metadatabase ;;
    *) part=${AIRFLOW_ROLE//-/_} ;;
esac
url=$scheme://$AIRFLOW_HOST:$AIRFLOW_PORT/api/v2/monitor/health
said=$(curl --silent --show-error --fail --max-time 5 ${TLS_CA_FILE:+--cacert "$TLS_CA_FILE"} "$url" 2>&1)
[[ $said =~ \"$part\":\{[^}]*\"status\":\"healthy\" ]] || {
    echo "$said"
    exit 1
}
