#!/usr/bin/env bash
# Spark standalone: SPARK_ROLE is master or worker. Daemons and applications know each other by SPARK_AUTH_SECRET.
#   JAVA_HOME, SPARK_JRE (see jre/bin/java), SPARK_HOME, SPARK_DATA_DIR (what executors write; its old leavings go
#   at start), RUN_DIR, SPARK_MASTER_PORT, SPARK_MASTER_WEBUI_PORT, SPARK_WORKER_PORT, SPARK_WORKER_WEBUI_PORT,
#   SPARK_WORKER_CORES, SPARK_WORKER_MEMORY (of all its executors), SPARK_DAEMON_MEMORY, LAKE_S3_REGION
#   SPARK_HOST, the name by which the others reach this one; SPARK_BIND, where it listens (default SPARK_HOST);
#   SPARK_MASTER_HOST, the master's name (default SPARK_HOST)
#   SPARK_TMP_DIR, optional: what daemons and executors unpack, in a folder that is emptied at start (else in /tmp)
#   SPARK_AUTH_SECRET_FILE
#   TLS_TRUSTSTORE_FILE, optional: see lib.sh; executors have it from the worker
source "$(dirname "$0")/../common/lib.sh"
need SPARK_ROLE JAVA_HOME SPARK_JRE SPARK_HOME SPARK_HOST SPARK_DATA_DIR RUN_DIR SPARK_MASTER_PORT SPARK_MASTER_WEBUI_PORT \
    SPARK_WORKER_PORT SPARK_WORKER_WEBUI_PORT SPARK_WORKER_CORES SPARK_WORKER_MEMORY SPARK_DAEMON_MEMORY LAKE_S3_REGION
[ -x "$SPARK_JRE/bin/java" ] || die "SPARK_JRE=$SPARK_JRE has no bin/java"
secret SPARK_AUTH_SECRET
master=${SPARK_MASTER_HOST:-$SPARK_HOST} bind=${SPARK_BIND:-$SPARK_HOST}
export SPARK_CONF_DIR=$RUN_DIR/conf
render "$here/config/spark-defaults.conf.template" "$SPARK_CONF_DIR/spark-defaults.conf"
unset SPARK_AUTH_SECRET
export SPARK_LOCAL_IP=$bind SPARK_PUBLIC_DNS=$SPARK_HOST
export SPARK_WORKER_DIR=$SPARK_DATA_DIR/work SPARK_LOCAL_DIRS=$SPARK_DATA_DIR/local AWS_REGION=$LAKE_S3_REGION
export SPARK_DAEMON_JAVA_OPTS="-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:+ExitOnOutOfMemoryError"
mkdir -p "$SPARK_WORKER_DIR" "$SPARK_LOCAL_DIRS"
if [ -n "${SPARK_TMP_DIR:-}" ]; then
    rm -rf "$SPARK_TMP_DIR"
    mkdir -p "$SPARK_TMP_DIR"
    export TMPDIR=$SPARK_TMP_DIR JAVA_TOOL_OPTIONS="${JAVA_TOOL_OPTIONS:+$JAVA_TOOL_OPTIONS }-Djava.io.tmpdir=$SPARK_TMP_DIR"
fi

own_address() { # HOST PORT: this machine's address on its way to HOST
    python3 -c 'import socket, sys; print(socket.create_connection(sys.argv[1:], 10).getsockname()[0])' "$1" "$2"
}

cd "$RUN_DIR"
case $SPARK_ROLE in
    master) exec "$SPARK_HOME/bin/spark-class" org.apache.spark.deploy.master.Master --host "$bind" ;;
    worker)
        find "$SPARK_LOCAL_DIRS" -mindepth 1 -maxdepth 1 -mtime +6 -exec rm -rf {} +
        wait_for "$master" "$SPARK_MASTER_PORT" 120
        # A worker and its executors are known by the address on which they listen, so that cannot be all of them: of several
        # networks it is the one in which SPARK_MASTER_HOST is found.
        [ "$bind" != 0.0.0.0 ] || bind=$(own_address "$master" "$SPARK_MASTER_PORT")
        exec "$SPARK_HOME/bin/spark-class" org.apache.spark.deploy.worker.Worker --host "$bind" "spark://$master:$SPARK_MASTER_PORT"
        ;;
    *) die "SPARK_ROLE=$SPARK_ROLE: must be master or worker" ;;
esac
