#!/usr/bin/env bash
# HAProxy: the one address of Airflow's API servers. A request goes to one that answers; TLS ends here and begins anew.
#   AIRFLOW_API_SERVERS  their host names; the first is there without the profile ha
#   AIRFLOW_PORT         where they listen, and this too
#   and what haproxy/proxy.sh names
source "$(dirname "$0")/../common/lib.sh"
source "$here/../haproxy/proxy.sh"
need AIRFLOW_API_SERVERS AIRFLOW_PORT

read -ra hosts <<<"$AIRFLOW_API_SERVERS"
profile ha || hosts=("${hosts[0]}")
backend "$AIRFLOW_PORT" "${hosts[@]}"
serve
