#!/usr/bin/env bash
# etcd: one member of the cluster that decides which PostgreSQL is the primary. Clients and peers show certificates.
#   ETCD_NAME                 this member, and its host name
#   ETCD_MEMBERS              all members' names, e.g. "etcd1 etcd2 etcd3"
#   ETCD_DATA_DIR, RUN_DIR
#   TLS_CERT_FILE, TLS_KEY_FILE, TLS_CA_FILE
#   ETCD_CLUSTER              name of the cluster, by which members of another one are refused (default shudl)
#   ETCD_STATE                of a member without data: new (default), or existing: it joins members that run
#   ETCD_QUOTA_BYTES          bound of the database (default 512 MiB); etcd takes no writes above it
source "$(dirname "$0")/../common/lib.sh"
need ETCD_NAME ETCD_MEMBERS ETCD_DATA_DIR RUN_DIR TLS_CERT_FILE TLS_KEY_FILE TLS_CA_FILE
: "${ETCD_CLUSTER:=shudl}" "${ETCD_STATE:=new}" "${ETCD_QUOTA_BYTES:=536870912}"
[[ $ETCD_STATE == new || $ETCD_STATE == existing ]] || die "ETCD_STATE=$ETCD_STATE must be new or existing"
[[ " $ETCD_MEMBERS " == *" $ETCD_NAME "* ]] || die "ETCD_NAME=$ETCD_NAME is not one of ETCD_MEMBERS=$ETCD_MEMBERS"

ETCD_PEERS=
for member in $ETCD_MEMBERS; do
    ETCD_PEERS+="${ETCD_PEERS:+,}$member=https://$member:2380"
done
render "$here/config/etcd.yaml.template" "$RUN_DIR/etcd.yaml"
# etcd would read ETCD_* too, and warn of those that it does not know.
unset "${!ETCD_@}"
exec etcd --config-file "$RUN_DIR/etcd.yaml"
