#!/usr/bin/env bash
# Fencer: hands PostgreSQL over at once when the primary's container has ended, and lets changes flow on when a standby stays away.
#   PATRONI_MEMBERS           members' names, and host names, e.g. "patroni1 patroni2"
#   ETCD_MEMBERS              e.g. "etcd1 etcd2 etcd3"
#   FENCER_PROJECT            the Compose project: a member's container is <project>-<member>-1
#   FENCER_ENGINE             where the engine is asked (default http://docker-filter:2375)
#   FENCER_EXITED_S           for how long a container must have ended (default 1)
#   FENCER_STANDBY_LIMIT_S    for how long changes wait for a standby that is away (default 600; 0: without limit)
#   FENCER_PORT               of /healthz and /metrics (default 9405)
#   POSTGRES_FENCER_PASSWORD_FILE
#   TLS_CERT_FILE, TLS_KEY_FILE, TLS_CA_FILE   shown to etcd
#   RUN_DIR
source "$(dirname "$0")/../common/lib.sh"
need PATRONI_MEMBERS ETCD_MEMBERS FENCER_PROJECT POSTGRES_FENCER_PASSWORD_FILE RUN_DIR TLS_CERT_FILE TLS_KEY_FILE TLS_CA_FILE
: "${FENCER_ENGINE:=http://docker-filter:2375}" "${FENCER_EXITED_S:=1}" "${FENCER_STANDBY_LIMIT_S:=600}" "${FENCER_PORT:=9405}"
for name in FENCER_EXITED_S FENCER_STANDBY_LIMIT_S FENCER_PORT; do
    [[ ${!name} =~ ^[0-9]+$ ]] || die "$name=${!name} is not a number of seconds, or a port"
done
export FENCER_ENGINE FENCER_EXITED_S FENCER_STANDBY_LIMIT_S FENCER_PORT
exec /opt/patroni/bin/python "$here/fencer.py"
