#!/usr/bin/env bash
# S3 storage by MinIO, on one disk. With TLS the console speaks it too.
#   S3_HOST, S3_PORT        where the others reach it; it listens at S3_BIND (default: S3_HOST)
#   S3_CONSOLE_PORT         the web console
#   S3_REGION               default us-east-1
#   S3_DATA_DIR, RUN_DIR
#   S3_ACCESS_KEY_FILE (3 characters or more), S3_SECRET_KEY_FILE (8 or more)
source "$(dirname "$0")/../common/lib.sh"
need S3_HOST S3_PORT S3_CONSOLE_PORT S3_DATA_DIR RUN_DIR
secret S3_ACCESS_KEY S3_SECRET_KEY
unset S3_ACCESS_KEY S3_SECRET_KEY # MinIO reads the files
scheme=http
certificates=$RUN_DIR/certificates
rm -rf "$certificates"
mkdir -p "$certificates/CAs" "$S3_DATA_DIR"
if tls; then
    scheme=https
    ln -s "$TLS_CERT_FILE" "$certificates/public.crt"
    ln -s "$TLS_KEY_FILE" "$certificates/private.key"
    ln -s "$TLS_CA_FILE" "$certificates/CAs/ca.crt"
fi
export MINIO_ROOT_USER_FILE=$S3_ACCESS_KEY_FILE MINIO_ROOT_PASSWORD_FILE=$S3_SECRET_KEY_FILE
export MINIO_SITE_REGION=${S3_REGION:-us-east-1}
export MINIO_SERVER_URL=$scheme://$S3_HOST:$S3_PORT # of which the console asks everything
# Metrics for Prometheus say nothing of what is stored.
export MINIO_PROMETHEUS_AUTH_TYPE=public
export MINIO_UPDATE=off MINIO_CALLHOME_ENABLE=off
cd "$RUN_DIR"
bind=${S3_BIND:-$S3_HOST}
exec minio server --certs-dir "$certificates" --address "$bind:$S3_PORT" --console-address "$bind:$S3_CONSOLE_PORT" "$S3_DATA_DIR"
