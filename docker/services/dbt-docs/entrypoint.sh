#!/usr/bin/env bash
# The pages that dbt makes of the project: models, columns, tests, lineage. Read only, anew every DBT_DOCS_REFRESH_S seconds.
#   AIRFLOW_PYTHON             an interpreter with what include/ needs (the image is Airflow's)
#   DBT_DOCS_PORT, RUN_DIR
#   DBT_DOCS_BIND              (default 0.0.0.0)
#   DBT_DOCS_REFRESH_S         (default 1800)
#   TRINO_HOST, TRINO_PORT, TRINO_USER, TRINO_PASSWORD_FILE
#                              Trino, which is asked for the tables' columns and sizes; the pages are there without it
source "$(dirname "$0")/../common/lib.sh"
need AIRFLOW_PYTHON DBT_DOCS_PORT RUN_DIR TRINO_HOST TRINO_PORT TRINO_USER TRINO_PASSWORD_FILE
[ -r "$TRINO_PASSWORD_FILE" ] || die "TRINO_PASSWORD_FILE=$TRINO_PASSWORD_FILE cannot be read"
root=$(cd "$here/../../.." && pwd)
# Settings read SHUDL_HOME, below which dbt keeps its log.
export PYTHONPATH=$root SHUDL_HOME=$RUN_DIR/home
exec "$AIRFLOW_PYTHON" "$here/serve.py"
