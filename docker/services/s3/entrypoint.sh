#!/usr/bin/env bash
# S3 storage by SeaweedFS: master, volume, filer and S3 gateway in one process.
#   WEED_BIN, S3_HOST, S3_PORT, S3_DATA_DIR, RUN_DIR
#   S3_{MASTER,MASTER_GRPC,VOLUME,VOLUME_GRPC,FILER,FILER_GRPC,GRPC}_PORT
#   S3_ACCESS_KEY_FILE, S3_SECRET_KEY_FILE
source "$(dirname "$0")/../common/lib.sh"
need WEED_BIN S3_HOST S3_PORT S3_DATA_DIR RUN_DIR S3_MASTER_PORT S3_MASTER_GRPC_PORT S3_VOLUME_PORT S3_VOLUME_GRPC_PORT \
    S3_FILER_PORT S3_FILER_GRPC_PORT S3_GRPC_PORT
secret S3_ACCESS_KEY S3_SECRET_KEY
render "$here/config/s3.json.template" "$RUN_DIR/s3.json"
unset S3_ACCESS_KEY S3_SECRET_KEY
mkdir -p "$S3_DATA_DIR"
cd "$RUN_DIR"
exec "$WEED_BIN" -logtostderr=true server -ip="$S3_HOST" -ip.bind="$S3_HOST" -dir="$S3_DATA_DIR" -disableHttp=false \
    -master.port="$S3_MASTER_PORT" -master.port.grpc="$S3_MASTER_GRPC_PORT" -master.volumeSizeLimitMB=1024 \
    -volume.port="$S3_VOLUME_PORT" -volume.port.grpc="$S3_VOLUME_GRPC_PORT" -volume.max=100 -volume.preStopSeconds=0 \
    -filer -filer.port="$S3_FILER_PORT" -filer.port.grpc="$S3_FILER_GRPC_PORT" \
    -s3 -s3.port="$S3_PORT" -s3.port.grpc="$S3_GRPC_PORT" -s3.port.iceberg=0 -s3.port.lance=0 -s3.config="$RUN_DIR/s3.json"
