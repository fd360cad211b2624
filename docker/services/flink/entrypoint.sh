#!/usr/bin/env bash
# Flink: FLINK_ROLE is jobmanager, taskmanager or sql-gateway.
#   JAVA_HOME, FLINK_HOME, FLINK_HOST, FLINK_DATA_DIR (checkpoints), RUN_DIR, FLINK_*_PORT, FLINK_{JOBMANAGER,TASKMANAGER}_MEMORY,
#   FLINK_GATEWAY_HEAP, FLINK_TASK_SLOTS, FLINK_CHECKPOINT_INTERVAL
#   LAKE_S3_REGION, LAKE_S3_ACCESS_KEY_FILE, LAKE_S3_SECRET_KEY_FILE
source "$(dirname "$0")/../common/lib.sh"
need FLINK_ROLE JAVA_HOME FLINK_HOME FLINK_HOST FLINK_DATA_DIR RUN_DIR FLINK_PORT FLINK_JOBMANAGER_RPC_PORT FLINK_TASKMANAGER_RPC_PORT \
    FLINK_TASKMANAGER_DATA_PORT FLINK_BLOB_PORT FLINK_METRICS_PORT FLINK_TASKMANAGER_METRICS_PORT FLINK_GATEWAY_PORT \
    FLINK_JOBMANAGER_MEMORY FLINK_TASKMANAGER_MEMORY FLINK_GATEWAY_HEAP FLINK_TASK_SLOTS FLINK_CHECKPOINT_INTERVAL LAKE_S3_REGION
secret LAKE_S3_ACCESS_KEY LAKE_S3_SECRET_KEY
export AWS_REGION=$LAKE_S3_REGION AWS_ACCESS_KEY_ID=$LAKE_S3_ACCESS_KEY AWS_SECRET_ACCESS_KEY=$LAKE_S3_SECRET_KEY
export FLINK_CONF_DIR=$RUN_DIR/conf FLINK_LOG_DIR=$RUN_DIR/log FLINK_PID_DIR=$RUN_DIR HADOOP_CONF_DIR=
mkdir -p "$FLINK_CONF_DIR" "$FLINK_LOG_DIR" "$FLINK_DATA_DIR/checkpoints"
render "$here/config/config.yaml.template" "$FLINK_CONF_DIR/config.yaml"
render "$here/config/log4j.properties.template" "$FLINK_CONF_DIR/log4j-console.properties"
case $FLINK_ROLE in
    jobmanager) exec "$FLINK_HOME/bin/jobmanager.sh" start-foreground ;;
    taskmanager)
        wait_for "$FLINK_HOST" "$FLINK_JOBMANAGER_RPC_PORT" 120
        exec "$FLINK_HOME/bin/taskmanager.sh" start-foreground
        ;;
    sql-gateway)
        export JVM_ARGS="-Xmx$FLINK_GATEWAY_HEAP -XX:+UseSerialGC"
        wait_for "$FLINK_HOST" "$FLINK_PORT" 120
        exec "$FLINK_HOME/bin/sql-gateway.sh" start-foreground
        ;;
    *) die "FLINK_ROLE=$FLINK_ROLE: must be jobmanager, taskmanager or sql-gateway" ;;
esac
