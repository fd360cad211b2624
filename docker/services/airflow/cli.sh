#!/usr/bin/env bash
# ShuDL's command line in a container of Airflow's image: cli.sh status
source "$(dirname "$0")/../common/lib.sh"
need AIRFLOW_PYTHON
exec "$AIRFLOW_PYTHON" -P -m include.cli "$@"
