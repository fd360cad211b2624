#!/usr/bin/env bash
# S3 storage by MinIO, on one disk. With TLS the console speaks it too.
#   S3_HOST, S3_PORT        where the others reach it; it listens at S3_BIND (default: S3_HOST)
#   S3_CONSOLE_PORT         the web console
#   S3_REGION               default us-east-1
#   S3_BUCKET               the bucket that is there from the first start on
#   S3_DATA_DIR, RUN_DIR
# Where people sign in by Keycloak (see signs_in), it also takes their tokens; the claim `policy` names what they may do:
#   OIDC_URL                its realm, as containers reach it; OIDC_MINIO_FILE, the client's secret
#   S3_ACCESS_KEY_FILE (3 characters or more), S3_SECRET_KEY_FILE (8 or more)
source "$(dirname "$0")/../common/lib.sh"
need S3_HOST S3_PORT S3_CONSOLE_PORT S3_BUCKET S3_DATA_DIR RUN_DIR
secret S3_ACCESS_KEY S3_SECRET_KEY
unset S3_ACCESS_KEY S3_SECRET_KEY # MinIO reads the files
scheme=http
certificates=$RUN_DIR/certificates
rm -rf "$certificates"
mkdir -p "$certificates/CAs" "$S3_DATA_DIR/$S3_BUCKET" # a folder is a bucket
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
if signs_in; then
    need OIDC_URL
    secret OIDC_MINIO
    document=$OIDC_URL/.well-known/openid-configuration
    export MINIO_IDENTITY_OPENID_CONFIG_URL=$document MINIO_IDENTITY_OPENID_CLIENT_ID=minio
    export MINIO_IDENTITY_OPENID_CLIENT_SECRET=$OIDC_MINIO MINIO_IDENTITY_OPENID_CLAIM_NAME=policy
    export MINIO_IDENTITY_OPENID_DISPLAY_NAME=ShuDL MINIO_IDENTITY_OPENID_SCOPES=openid
    export MINIO_IDENTITY_OPENID_REDIRECT_URI_DYNAMIC=on MINIO_IDENTITY_OPENID_CLAIM_USERINFO=off
    unset OIDC_MINIO
    # MinIO asks for the realm once, at its start, and S3 must not wait for Keycloak. So where it did not answer yet, MinIO ends
    # when it does, for Docker to start it again, a second later.
    known() { curl --silent --fail --output /dev/null --max-time 5 "$document"; }
    if ! known; then
        server=$BASHPID
        (
            until known; do sleep 3; done
            echo "minio: Keycloak answers: starting again to know its realm"
            kill -TERM "$server"
        ) &
    fi
fi
cd "$RUN_DIR"
bind=${S3_BIND:-$S3_HOST}
exec minio server --certs-dir "$certificates" --address "$bind:$S3_PORT" --console-address "$bind:$S3_CONSOLE_PORT" "$S3_DATA_DIR"
