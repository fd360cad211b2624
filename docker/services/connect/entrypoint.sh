#!/usr/bin/env bash
# Kafka Connect with Debezium's PostgreSQL connector and the Avro converter.
#   JAVA_HOME, KAFKA_LIBS, CONNECT_PLUGINS, CONNECT_HOST, CONNECT_PORT, CONNECT_HEAP, RUN_DIR
#   CONNECT_BIND           where it listens; CONNECT_HOST unless set
#   CONNECT_SECRETS_DIR    files that connector settings may name as ${dir:<folder>:<file>}
#   KAFKA_BROKERS          host names of brokers, of which the first is there without the profile ha; KAFKA_HOST unless set
#   KAFKA_PORT
#   KAFKA_BOOTSTRAP        brokers of a Kafka that is external, instead: host:port,host:port
#   KAFKA_CONNECT_PASSWORD_FILE  where Kafka speaks TLS: of the user KAFKA_CONNECT_USER (connect), by KAFKA_SASL_MECHANISM
source "$(dirname "$0")/../common/lib.sh"
need JAVA_HOME KAFKA_LIBS CONNECT_PLUGINS CONNECT_HOST CONNECT_PORT CONNECT_HEAP CONNECT_SECRETS_DIR KAFKA_PORT RUN_DIR
CONNECT_BIND=${CONNECT_BIND:-$CONNECT_HOST}
CONNECT_SCHEME=http
read -ra brokers <<<"${KAFKA_BROKERS:-${KAFKA_HOST:-}}"
[ "${#brokers[@]}" != 0 ] || die "KAFKA_BROKERS or KAFKA_HOST must be set"
profile ha || brokers=("${brokers[0]}")
CONNECT_BOOTSTRAP=${KAFKA_BOOTSTRAP:-$(printf "%s:$KAFKA_PORT\n" "${brokers[@]}" | paste -sd,)}
properties="$RUN_DIR/connect.properties"


if tls; then # its web server reads no PEM
    CONNECT_SCHEME=https
    CONNECT_KEYSTORE_PASSWORD=$(openssl rand -hex 20)
    (umask 077 && openssl pkcs12 -export -in "$TLS_CERT_FILE" -inkey "$TLS_KEY_FILE" -out "$RUN_DIR/keystore.p12" \
        -passout fd:3 3<<<"$CONNECT_KEYSTORE_PASSWORD") || die "TLS_CERT_FILE=$TLS_CERT_FILE and TLS_KEY_FILE=$TLS_KEY_FILE do not fit"
fi
render "$here/config/connect.properties.template" "$properties"
! tls || append "$here/config/tls.properties.template" "$properties"
if [ -n "${KAFKA_CONNECT_PASSWORD_FILE:-}" ]; then
    need TLS_CA_FILE
    secret KAFKA_CONNECT_PASSWORD
    export -n KAFKA_CONNECT_PASSWORD
    KAFKA_CONNECT_USER=${KAFKA_CONNECT_USER:-connect}
    case $KAFKA_CONNECT_PASSWORD in *[\\\"]*) die "KAFKA_CONNECT_PASSWORD_FILE=$KAFKA_CONNECT_PASSWORD_FILE: a password without \\ and \" is needed" ;; esac
    kafka_login
    for KAFKA_CLIENT in "" producer. consumer. admin.; do
        append "$here/config/kafka.properties.template" "$properties"
    done
fi
render "$here/config/log4j2.yaml.template" "$RUN_DIR/log4j2.yaml"
(umask 077 && mkdir -p "$CONNECT_SECRETS_DIR")
[ -n "${KAFKA_BOOTSTRAP:-}" ] || wait_for_any "$KAFKA_PORT" 120 "${brokers[@]}"
jmx_agent
exec "$JAVA_HOME/bin/java" "${agent[@]}" "-Xmx$CONNECT_HEAP" -Duser.timezone=UTC -XX:+UseG1GC -XX:+ExitOnOutOfMemoryError "-Dlog4j2.configurationFile=$RUN_DIR/log4j2.yaml" \
    -cp "$KAFKA_LIBS/*" org.apache.kafka.connect.cli.ConnectDistributed "$properties"
