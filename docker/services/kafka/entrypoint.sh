#!/usr/bin/env bash
# Kafka in KRaft mode, broker and controller in one process. The log folder is formatted at first start.
#   JAVA_HOME, KAFKA_LIBS, KAFKA_HOST, KAFKA_PORT, KAFKA_CONTROLLER_PORT, KAFKA_DATA_DIR, KAFKA_HEAP, KAFKA_RETENTION_HOURS, RUN_DIR
#   KAFKA_BIND         where clients reach it; KAFKA_HOST unless set. The controller is on 127.0.0.1 alone
# With TLS, clients sign in by SCRAM-SHA-512 and may do what ACLs say; the users broker and airflow may do everything:
#   KAFKA_BROKER_PORT  on 127.0.0.1, for the broker itself, where only the user broker signs in (9094)
#   KAFKA_BROKER_PASSWORD_FILE, KAFKA_AIRFLOW_PASSWORD_FILE
#   KAFKA_CONNECT_PASSWORD_FILE, KAFKA_FLINK_PASSWORD_FILE, KAFKA_UI_PASSWORD_FILE  of connect, flink and kafka-ui: optional
# Each start gives the users the passwords that are in the files.
source "$(dirname "$0")/../common/lib.sh"
need JAVA_HOME KAFKA_LIBS KAFKA_HOST KAFKA_PORT KAFKA_CONTROLLER_PORT KAFKA_DATA_DIR KAFKA_HEAP KAFKA_RETENTION_HOURS RUN_DIR
KAFKA_BIND=${KAFKA_BIND:-$KAFKA_HOST}
KAFKA_BROKER_PORT=${KAFKA_BROKER_PORT:-9094}

java=("$JAVA_HOME/bin/java" "-Dlog4j2.configurationFile=$RUN_DIR/log4j2.yaml" "-Dkafka.logs.dir=$RUN_DIR" -cp "$KAFKA_LIBS/*")
users=() # name=password, of those who sign in by SCRAM
known="$KAFKA_DATA_DIR/users.sha256"

# password USER: the variable KAFKA_<USER>_PASSWORD, from its file.
password() {
    local variable="KAFKA_${1^^}_PASSWORD"
    local file="${variable}_FILE"
    secret "$variable"
    export -n "${variable?}"
    [[ ${!variable} != *[!A-Za-z0-9._~-]* ]] || die "$file=${!file}: a password of Kafka's has letters, digits and . _ ~ - only"
}

read_passwords() {
    local user file
    password broker
    KAFKA_BROKER_LOGIN="org.apache.kafka.common.security.plain.PlainLoginModule required username=\"broker\" password=\"$KAFKA_BROKER_PASSWORD\""
    password airflow
    users=("airflow=$KAFKA_AIRFLOW_PASSWORD")
    for user in connect flink ui; do
        file="KAFKA_${user^^}_PASSWORD_FILE"
        [ -n "${!file:-}" ] || continue
        password "$user"
        file=${file%_FILE}
        users+=("${user/#ui/kafka-ui}=${!file}")
    done
}

fingerprint() {
    printf '%s\n' "$KAFKA_BROKER_PASSWORD" "${users[@]}" | sha256sum
}

# tool CLASS ARG...: runs a tool of Kafka's, its arguments in a file, as they have passwords in them; so can what it prints.
tool() {
    local arguments="$RUN_DIR/arguments" status=0
    (umask 077 && printf '"%s"\n' "$@" >"$arguments")
    "${java[@]}" "@$arguments" 2>&1 >/dev/null | sed '/password=/d' >&2 || status=$?
    rm "$arguments"
    return "$status"
}

format() {
    local id user arguments=()
    id=$(head -c 16 /dev/urandom | base64 | tr +/ ab | tr -d =)
    for user in "${users[@]}"; do
        arguments+=(--add-scram "SCRAM-SHA-512=[name=${user%%=*},password=${user#*=}]")
    done
    tool kafka.tools.StorageTool format -t "$id" -c "$RUN_DIR/server.properties" --ignore-formatted "${arguments[@]}" ||
        die "$KAFKA_DATA_DIR cannot be formatted"
}

# Beside the broker, which is not healthy until this has ended (see the Dockerfile).
renew_passwords() {
    local user
    wait_for 127.0.0.1 "$KAFKA_BROKER_PORT" 120
    for user in "${users[@]}"; do
        tool kafka.admin.ConfigCommand --bootstrap-server "127.0.0.1:$KAFKA_BROKER_PORT" --command-config "$RUN_DIR/admin.properties" \
            --alter --entity-type users --entity-name "${user%%=*}" --add-config "SCRAM-SHA-512=[password=${user#*=}]" ||
            die "the new password of the user ${user%%=*} could not be set; restart Kafka to try again"
    done
    fingerprint >"$known"
    rm "$RUN_DIR/renewing"
    echo "kafka: the users' passwords are those of their files" >&2
}

mkdir -p "$KAFKA_DATA_DIR"
rm -f "$RUN_DIR/renewing"
listeners=plain
if tls; then
    listeners=tls
    read_passwords
    (umask 077 && cat "$TLS_KEY_FILE" "$TLS_CERT_FILE" >"$RUN_DIR/keystore.pem")
    render "$here/config/admin.properties.template" "$RUN_DIR/admin.properties"
fi
render "$here/config/log4j2.yaml.template" "$RUN_DIR/log4j2.yaml"
render "$here/config/server.properties.template" "$RUN_DIR/server.properties"
render "$here/config/$listeners.properties.template" "$RUN_DIR/listeners.properties"
cat "$RUN_DIR/listeners.properties" >>"$RUN_DIR/server.properties"
rm "$RUN_DIR/listeners.properties"
if [ ! -f "$KAFKA_DATA_DIR/meta.properties" ]; then
    format
    ! tls || fingerprint >"$known"
elif tls && [ "$(fingerprint)" != "$(cat "$known" 2>/dev/null)" ]; then
    touch "$RUN_DIR/renewing"
    (renew_passwords &)
fi
jmx_agent
exec "${java[@]}" "${agent[@]}" "-Xmx$KAFKA_HEAP" -XX:+UseG1GC -XX:+ExitOnOutOfMemoryError kafka.Kafka "$RUN_DIR/server.properties"
