#!/usr/bin/env bash
# Spark standalone: SPARK_ROLE is master or worker. Daemons and applications know each other by SPARK_AUTH_SECRET.
#   JAVA_HOME, SPARK_JRE (see jre/bin/java), SPARK_HOME, SPARK_HOST, SPARK_DATA_DIR (what executors write; its old leavings go
#   at start), RUN_DIR, SPARK_MASTER_PORT, SPARK_MASTER_WEBUI_PORT, SPARK_WORKER_PORT, SPARK_WORKER_WEBUI_PORT,
#   SPARK_WORKER_CORES, SPARK_WORKER_MEMORY (of all its executors), SPARK_DAEMON_MEMORY, LAKE_S3_REGION
#   SPARK_AUTH_SECRET_FILE
source "$(dirname "$0")/../common/lib.sh"
need SPARK_ROLE JAVA_HOME SPARK_JRE SPARK_HOME SPARK_HOST SPARK_DATA_DIR RUN_DIR SPARK_MASTER_PORT SPARK_MASTER_WEBUI_PORT \
    SPARK_WORKER_PORT SPARK_WORKER_WEBUI_PORT SPARK_WORKER_CORES SPARK_WORKER_MEMORY SPARK_DAEMON_MEMORY LAKE_S3_REGION
[ -x "$SPARK_JRE/bin/java" ] || die "SPARK_JRE=$SPARK_JRE has no bin/java"
secret SPARK_AUTH_SECRET
export SPARK_CONF_DIR=$RUN_DIR/conf
render "$here/config/spark-defaults.conf.template" "$SPARK_CONF_DIR/spark-defaults.conf"
unset SPARK_AUTH_SECRET
export SPARK_LOCAL_IP=$SPARK_HOST SPARK_WORKER_DIR=$SPARK_DATA_DIR/work SPARK_LOCAL_DIRS=$SPARK_DATA_DIR/local AWS_REGION=$LAKE_S3_REGION
export SPARK_DAEMON_JAVA_OPTS="-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:+ExitOnOutOfMemoryError"
mkdir -p "$SPARK_WORKER_DIR" "$SPARK_LOCAL_DIRS"
cd "$RUN_DIR"
case $SPARK_ROLE in
    master) exec "$SPARK_HOME/bin/spark-class" org.apache.spark.deploy.master.Master --host "$SPARK_HOST" ;;
    worker)
        find "$SPARK_LOCAL_DIRS" -mindepth 1 -maxdepth 1 -mtime +6 -exec rm -rf {} +
        wait_for "$SPARK_HOST" "$SPARK_MASTER_PORT" 120
        exec "$SPARK_HOME/bin/spark-class" org.apache.spark.deploy.worker.Worker --host "$SPARK_HOST" "spark://$SPARK_HOST:$SPARK_MASTER_PORT"
        ;;
    *) die "SPARK_ROLE=$SPARK_ROLE: must be master or worker" ;;
esac
