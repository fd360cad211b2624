#!/usr/bin/env bash
# Kafka in KRaft mode, broker and controller in one process. The log folder is formatted at first start.
# With the profile ha it is one of KAFKA_BROKERS, which are a quorum and keep each record three times, two of them at once.
#   JAVA_HOME, KAFKA_LIBS, KAFKA_HOST, KAFKA_PORT, KAFKA_CONTROLLER_PORT, KAFKA_DATA_DIR, KAFKA_HEAP, KAFKA_RETENTION_HOURS, RUN_DIR
#   KAFKA_BIND         where clients reach it; KAFKA_HOST unless set. The controller is on 127.0.0.1 alone
#   KAFKA_TMP_DIR      where it unpacks libraries, which must be allowed to run there; the JVM's own unless set
#   KAFKA_BROKERS      host names of all brokers of the profile ha; the first is the one that runs without it. KAFKA_HOST unless set
# With TLS, clients sign in by SCRAM-SHA-512 and may do what ACLs say; the users broker and airflow may do everything:
#   KAFKA_BROKER_PORT  for brokers among themselves, where only the user broker signs in (9094); on 127.0.0.1 for a single one
#   KAFKA_BROKER_PASSWORD_FILE, KAFKA_AIRFLOW_PASSWORD_FILE
#   KAFKA_CONNECT_PASSWORD_FILE, KAFKA_FLINK_PASSWORD_FILE, KAFKA_UI_PASSWORD_FILE  of connect, flink and kafka-ui: optional
# Each start gives the users the passwords that are in the files.
source "$(dirname "$0")/../common/lib.sh"
need JAVA_HOME KAFKA_LIBS KAFKA_HOST KAFKA_PORT KAFKA_CONTROLLER_PORT KAFKA_DATA_DIR KAFKA_HEAP KAFKA_RETENTION_HOURS RUN_DIR
KAFKA_BIND=${KAFKA_BIND:-$KAFKA_HOST}
KAFKA_BROKER_PORT=${KAFKA_BROKER_PORT:-9094}
read -ra brokers <<<"${KAFKA_BROKERS:-$KAFKA_HOST}"
profile ha || brokers=("${brokers[0]}")
KAFKA_NODE_ID=0
for number in "${!brokers[@]}"; do
    [ "${brokers[number]}" != "$KAFKA_HOST" ] || KAFKA_NODE_ID=$((number + 1))
done
[ "$KAFKA_NODE_ID" != 0 ] || die "KAFKA_HOST=$KAFKA_HOST is not one of the brokers that run: ${brokers[*]}"
KAFKA_REPLICATION=${#brokers[@]}
KAFKA_MIN_ISR=$((KAFKA_REPLICATION > 1 ? KAFKA_REPLICATION - 1 : 1))
KAFKA_OWN_HOST=127.0.0.1 KAFKA_OWN_BIND=127.0.0.1
((KAFKA_REPLICATION == 1)) || KAFKA_OWN_HOST=$KAFKA_HOST KAFKA_OWN_BIND=$KAFKA_BIND

java=("$JAVA_HOME/bin/java" "-Dlog4j2.configurationFile=$RUN_DIR/log4j2.yaml" "-Dkafka.logs.dir=$RUN_DIR" -cp "$KAFKA_LIBS/*")
[ -z "${KAFKA_TMP_DIR:-}" ] || java+=("-Djava.io.tmpdir=$KAFKA_TMP_DIR")
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

# ask CLASS ARG...: prints what a tool answers; `as_broker` are the arguments by which it signs in.
as_broker=(--command-config "$RUN_DIR/admin.properties")
ask() {
    "${java[@]}" "$@" 2>/dev/null
}

listens() { # HOST PORT
    timeout 2 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>/dev/null
}

# Prints the id of the cluster that another of the brokers is in already, if one answers.
cluster_id() {
    local broker
    for broker in "${brokers[@]}"; do
        if [ "$broker" != "$KAFKA_HOST" ] && listens "$broker" "$KAFKA_BROKER_PORT"; then
            ask org.apache.kafka.tools.ClusterTool cluster-id --bootstrap-server "$broker:$KAFKA_BROKER_PORT" "${as_broker[@]}" | sed -n 's/^Cluster ID: //p'
            return
        fi
    done
}

# The first broker begins a cluster, unless another is there already; the others join, and vote once they have caught up.
format() {
    local id='' user arguments=() deadline=$((SECONDS + 300))
    until id=$(cluster_id) && [ -n "$id" ] || [ "$KAFKA_NODE_ID" = 1 ]; do
        [ "$SECONDS" -lt "$deadline" ] || die "no broker of ${brokers[*]} answered within 300 s; the first of them begins the cluster"
        sleep 2
    done
    if [ -n "$id" ]; then
        tool kafka.tools.StorageTool format -t "$id" -c "$RUN_DIR/server.properties" --no-initial-controllers ||
            die "$KAFKA_DATA_DIR cannot be formatted"
        return
    fi
    id=$(head -c 16 /dev/urandom | base64 | tr +/ ab | tr -d =)
    ! tls || arguments=(--standalone)
    for user in "${users[@]}"; do
        arguments+=(--add-scram "SCRAM-SHA-512=[name=${user%%=*},password=${user#*=}]")
    done
    tool kafka.tools.StorageTool format -t "$id" -c "$RUN_DIR/server.properties" --ignore-formatted "${arguments[@]}" ||
        die "$KAFKA_DATA_DIR cannot be formatted"
}

# Beside the broker, which is not healthy until this has ended (see the Dockerfile).
renew_passwords() {
    local user
    wait_for 127.0.0.1 "$KAFKA_BROKER_PORT" 600
    for user in "${users[@]}"; do
        tool kafka.admin.ConfigCommand --bootstrap-server "127.0.0.1:$KAFKA_BROKER_PORT" --command-config "$RUN_DIR/admin.properties" \
            --alter --entity-type users --entity-name "${user%%=*}" --add-config "SCRAM-SHA-512=[password=${user#*=}]" ||
            die "the new password of the user ${user%%=*} could not be set; restart Kafka to try again"
    done
    fingerprint >"$known"
    rm "$RUN_DIR/renewing"
    echo "kafka: the users' passwords are those of their files" >&2
}

# Data of before others could join: its voters stand in the settings, not in the log.
static_voters() {
    grep -qs '"data_version":0' "$KAFKA_DATA_DIR/__cluster_metadata-0/quorum-state"
}

# Beside the first broker: lets others join data of before they could.
let_join() {
    local deadline=$((SECONDS + 300))
    wait_for 127.0.0.1 "$KAFKA_BROKER_PORT" 600
    until ask org.apache.kafka.tools.FeatureCommand --bootstrap-server "127.0.0.1:$KAFKA_BROKER_PORT" "${as_broker[@]}" \
        upgrade --feature kraft.version=1 >/dev/null; do
        [ "$SECONDS" -lt "$deadline" ] || die "kraft.version could not be raised to 1 within 300 s; restart Kafka to try again"
        sleep 3
    done
    echo "kafka: voters stand in the log now: other brokers can join" >&2
}

# Beside the first broker: topics that have fewer replicas than there are brokers get them; what is new has them by itself.
replicate() {
    local server=127.0.0.1:$KAFKA_BROKER_PORT plan="$RUN_DIR/replicas.json" deadline=$((SECONDS + 300))
    wait_for 127.0.0.1 "$KAFKA_BROKER_PORT" 600
    until raise_replicas "$server" "$plan"; do
        [ "$SECONDS" -lt "$deadline" ] || die "replicas could not be given to all of ${brokers[*]} within 300 s; restart Kafka to try again"
        sleep 3
    done
    echo "kafka: $(grep -o '"topic"' "$plan" | wc -l) partitions get replicas on all of ${brokers[*]}" >&2
    rm "$plan"
}

raise_replicas() { # SERVER PLAN: fails while a broker is not there yet
    local topics
    topics=$(ask org.apache.kafka.tools.TopicCommand --bootstrap-server "$1" "${as_broker[@]}" --describe) || return
    replicas "$KAFKA_REPLICATION" <<<"$topics" >"$2"
    if grep -q '"topic"' "$2"; then
        ask org.apache.kafka.tools.reassign.ReassignPartitionsCommand --bootstrap-server "$1" "${as_broker[@]}" \
            --reassignment-json-file "$2" --execute >/dev/null || return
    fi
    # A cluster of one has kept its own minimum in the log, where it goes before the settings.
    ask kafka.admin.ConfigCommand --bootstrap-server "$1" "${as_broker[@]}" --alter --entity-type brokers --entity-default \
        --add-config "min.insync.replicas=$KAFKA_MIN_ISR" >/dev/null
}

# replicas N: reads topics as TopicCommand describes them; prints a plan that gives those partitions with fewer all of 1 to N.
replicas() {
    awk -v n="$1" '
        match($0, /Topic: [^ \t]+/) { topic = substr($0, RSTART + 7, RLENGTH - 7) }
        match($0, /Partition: [0-9]+/) {
            partition = substr($0, RSTART + 11, RLENGTH - 11)
            match($0, /Replicas: [0-9,]+/)
            all = substr($0, RSTART + 10, RLENGTH - 10)
            count = split(all, now, ",")
            if (count >= n) next
            for (id = 1; id <= n; id++) if ("," all "," !~ "," id ",") all = all "," id
            plan = plan (plan ? "," : "") "{\"topic\":\"" topic "\",\"partition\":" partition ",\"replicas\":[" all "]}"
        }
        END { print "{\"version\":1,\"partitions\":[" plan "]}" }'
}

mkdir -p "$KAFKA_DATA_DIR"
rm -f "$RUN_DIR/renewing"
listeners=plain
KAFKA_QUORUM=controller.quorum.voters=1@127.0.0.1:$KAFKA_CONTROLLER_PORT
if tls; then
    listeners=tls
    ((KAFKA_REPLICATION > 1)) && quorum=("${brokers[@]}") || quorum=(127.0.0.1)
    if static_voters; then
        KAFKA_QUORUM=controller.quorum.voters=1@$KAFKA_OWN_HOST:$KAFKA_CONTROLLER_PORT
    else
        KAFKA_QUORUM="controller.quorum.bootstrap.servers=$(printf "%s:$KAFKA_CONTROLLER_PORT\n" "${quorum[@]}" | paste -sd,)
controller.quorum.auto.join.enable=true"
    fi
    read_passwords
    (umask 077 && cat "$TLS_KEY_FILE" "$TLS_CERT_FILE" >"$RUN_DIR/keystore.pem")
    render "$here/config/admin.properties.template" "$RUN_DIR/admin.properties"
fi
render "$here/config/log4j2.yaml.template" "$RUN_DIR/log4j2.yaml"
render "$here/config/server.properties.template" "$RUN_DIR/server.properties"
append "$here/config/$listeners.properties.template" "$RUN_DIR/server.properties"
if [ ! -f "$KAFKA_DATA_DIR/meta.properties" ]; then
    format
    ! tls || fingerprint >"$known"
elif tls && [ "$KAFKA_NODE_ID" = 1 ] && [ "$(fingerprint)" != "$(cat "$known" 2>/dev/null)" ]; then
    touch "$RUN_DIR/renewing"
    (renew_passwords &)
fi
if tls && [ "$KAFKA_NODE_ID" = 1 ]; then
    ! static_voters || (let_join &)
    ((KAFKA_REPLICATION == 1)) || (replicate &)
fi
jmx_agent
exec "${java[@]}" "${agent[@]}" "-Xmx$KAFKA_HEAP" -XX:+UseG1GC -XX:+ExitOnOutOfMemoryError kafka.Kafka "$RUN_DIR/server.properties"
