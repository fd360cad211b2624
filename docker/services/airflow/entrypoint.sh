#!/usr/bin/env bash
# One of Airflow's processes. The API server brings the metadata database up to date and seeds it; the
# others wait until it has.
#   AIRFLOW_ROLE            api-server, scheduler, dag-processor, triggerer or worker (profile ha: it runs tasks, as Celery's)
#   AIRFLOW_PYTHON          the interpreter that has Airflow
#   AIRFLOW_HOST, _PORT     where the others reach the API server, which listens at AIRFLOW_BIND (default: AIRFLOW_HOST)
#   AIRFLOW_URL             where people reach it (default: the same)
#   AIRFLOW_DATA_DIR        Airflow's home
#   AIRFLOW_LOGS_DIR        logs of tasks and of DAG files; those of more than AIRFLOW_LOGS_DAYS (14) days go at start
#   AIRFLOW_DB_HOST, _PORT, AIRFLOW_DB_PASSWORD_FILE
#                           metadata: role and database "airflow" in a PostgreSQL of its own
#   AIRFLOW_FERNET_FILE     random text from which the key is made that encrypts connections
#   AIRFLOW_JWT_FILE        random text that signs tokens
#   AIRFLOW_API_FILE        random text that signs the UI's sessions
#   AIRFLOW_ADMIN_FILE      password of the user "admin"
#   VALKEY_HOST, VALKEY_PORT, VALKEY_PASSWORD_FILE
#                           profile ha: the queue from which workers take tasks; AIRFLOW_WORKER_TASKS is how many each runs at once
# Where people sign in by Keycloak (see signs_in): OIDC_ISSUER and OIDC_URL, its realm as browsers and as containers reach it,
# and OIDC_AIRFLOW_FILE, the client's secret.
# With TLS_CA_FILE the API server speaks TLS, the others reach it so, and the metadata database must too.
source "$(dirname "$0")/../common/lib.sh"
need AIRFLOW_ROLE AIRFLOW_PYTHON AIRFLOW_HOST AIRFLOW_PORT AIRFLOW_DATA_DIR AIRFLOW_LOGS_DIR AIRFLOW_DB_HOST AIRFLOW_DB_PORT RUN_DIR
secret AIRFLOW_DB_PASSWORD AIRFLOW_FERNET AIRFLOW_JWT AIRFLOW_API AIRFLOW_ADMIN
case "$AIRFLOW_ROLE" in
    api-server)
        options=(--host "${AIRFLOW_BIND:-$AIRFLOW_HOST}" --port "$AIRFLOW_PORT" --workers 1)
        if tls; then options+=(--ssl-cert "$TLS_CERT_FILE" --ssl-key "$TLS_KEY_FILE"); fi
        ;;
    scheduler | triggerer) options=(--skip-serve-logs) ;;
    dag-processor) options=() ;;
    worker) options=(worker --skip-serve-logs --without-mingle --without-gossip) ;;
    *) die "AIRFLOW_ROLE=$AIRFLOW_ROLE: must be api-server, scheduler, dag-processor, triggerer or worker" ;;
esac
root=$(cd "$here/../../.." && pwd)

encoded() { # TEXT: as a part of a URL
    local LC_ALL=C text=$1 i
    for ((i = 0; i < ${#text}; i++)); do
        case ${text:i:1} in
            [A-Za-z0-9._~-]) printf %s "${text:i:1}" ;;
            *) printf %%%02X "'${text:i:1}" ;;
        esac
    done
}

scheme=http
database=$(encoded "$AIRFLOW_DB_PASSWORD")@$AIRFLOW_DB_HOST:$AIRFLOW_DB_PORT/airflow
set -a

# ── places ──
AIRFLOW_HOME=$AIRFLOW_DATA_DIR
PYTHONPATH=$root
AIRFLOW__CORE__DAGS_FOLDER=$root/dags
AIRFLOW__CORE__PLUGINS_FOLDER=$root/plugins
AIRFLOW__LOGGING__BASE_LOG_FOLDER=$AIRFLOW_LOGS_DIR
AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY=$AIRFLOW_LOGS_DIR/dag_processor
AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=postgresql+psycopg2://airflow:$database
if [ -n "${TLS_CA_FILE:-}" ]; then
    scheme=https
    AIRFLOW__API__SSL_CA_FILE=$TLS_CA_FILE
    AIRFLOW__API__CLIENT_USE_PUBLIC_CERTS=False
    verify="sslmode=verify-full&sslrootcert=$TLS_CA_FILE"
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN+="?$verify"
    # SQLAlchemy gives asyncpg what follows the question mark as arguments, and asyncpg takes the authority only within a DSN.
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC="postgresql+asyncpg://airflow:$database?dsn=$(encoded "postgresql:///?$verify")"
fi
AIRFLOW__CORE__EXECUTION_API_SERVER_URL=$scheme://$AIRFLOW_HOST:$AIRFLOW_PORT/execution/
AIRFLOW__API__BASE_URL=${AIRFLOW_URL:-$scheme://$AIRFLOW_HOST:$AIRFLOW_PORT}

# ── access ──
AIRFLOW__CORE__FERNET_KEY=$(printf "$(printf %s "$AIRFLOW_FERNET" | sha256sum | cut -c1-64 | sed 's/../\\x&/g')" | base64 | tr '+/' '-_')
AIRFLOW__API_AUTH__JWT_SECRET=$AIRFLOW_JWT
AIRFLOW__API__SECRET_KEY=$AIRFLOW_API
AIRFLOW__API__EXPOSE_CONFIG=False
AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS=admin:admin
if signs_in; then
    need OIDC_ISSUER OIDC_URL OIDC_AIRFLOW_FILE
    AIRFLOW__CORE__AUTH_MANAGER=shudl.sign_in.KeycloakSignIn
fi
AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE=$RUN_DIR/passwords.json
AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FOLDER_PERMISSIONS=0o700
AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FILE_PERMISSIONS=0o600

# ── what runs ──
AIRFLOW__CORE__EXECUTOR=LocalExecutor
AIRFLOW__CORE__PARALLELISM=6
AIRFLOW__CORE__LOAD_EXAMPLES=False
AIRFLOW__CORE__MAX_ACTIVE_RUNS_PER_DAG=1
AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY=10
# Tasks of a scheduler that was killed run again once it has been silent for 30 s.
AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD=30
AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL=15
if profile ha; then
    need VALKEY_HOST VALKEY_PORT AIRFLOW_WORKER_TASKS TLS_CA_FILE
    secret VALKEY_PASSWORD
    AIRFLOW__CORE__EXECUTOR=CeleryExecutor
    AIRFLOW__CELERY__BROKER_URL=rediss://:$(encoded "$VALKEY_PASSWORD")@$VALKEY_HOST:$VALKEY_PORT/0
    AIRFLOW__CELERY__SSL_ACTIVE=True
    AIRFLOW__CELERY__SSL_MUTUAL_TLS=False
    AIRFLOW__CELERY__SSL_CACERT=$TLS_CA_FILE
    AIRFLOW__CELERY__WORKER_CONCURRENCY=$AIRFLOW_WORKER_TASKS
    AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT=86400
    # Each scheduler says itself whether it lives: the API server knows of one that does.
    AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK=True
    AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_HOST=0.0.0.0
    # What ran in a worker that was killed is tried again once it has been silent for a minute, whatever its DAG says of retries;
    # what it had taken and not begun, after two.
    AIRFLOW__CORE__DEFAULT_TASK_RETRIES=1
    AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT=60
    AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT=120
    AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL=30
fi
# start.py sees to the migrations.
AIRFLOW__DATABASE__CHECK_MIGRATIONS=False
AIRFLOW__LOGGING__COLORED_CONSOLE_LOG=False
AIRFLOW__API__AUTO_REFRESH_INTERVAL=2

# ── load: a changed DAG file is seen within seconds, an unchanged one is read again every 20 s: for changed pipeline files ──
AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES=1
AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL=5
AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL=20
AIRFLOW__DAG_PROCESSOR__STALE_DAG_THRESHOLD=60
AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL=1
AIRFLOW__TRIGGERER__CAPACITY=100
MALLOC_ARENA_MAX=2
OMP_NUM_THREADS=1

# ── no telemetry ──
SCARF_ANALYTICS=False
DO_NOT_TRACK=1
AIRFLOW__COSMOS__ENABLE_TELEMETRY=False
DBT_SEND_ANONYMOUS_USAGE_STATS=False
set +a

mkdir -p "$AIRFLOW_DATA_DIR" "$AIRFLOW_LOGS_DIR"
case $AIRFLOW_ADMIN in *[\\\"]*) die "AIRFLOW_ADMIN_FILE=$AIRFLOW_ADMIN_FILE: a password without \\ and \" is needed" ;; esac
(umask 077 && printf '{"admin": "%s"}\n' "$AIRFLOW_ADMIN" >"$RUN_DIR/passwords.json")
unset database verify scheme VALKEY_PASSWORD AIRFLOW_DB_PASSWORD AIRFLOW_FERNET AIRFLOW_JWT AIRFLOW_API AIRFLOW_ADMIN
if [ "$AIRFLOW_ROLE" = scheduler ]; then
    find "$AIRFLOW_LOGS_DIR" -mindepth 1 \( -type f -o -type d -empty \) -mtime +"${AIRFLOW_LOGS_DAYS:-14}" -delete || true
fi
cd "$root"
exec "$AIRFLOW_PYTHON" "$here/start.py" "${AIRFLOW_ROLE/#worker/celery}" "${options[@]}"
