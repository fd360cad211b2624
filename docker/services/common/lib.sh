# Shared by every entrypoint. Sourced, never run.
#   need VAR...              stop, naming the first variable that is not set
#   secret VAR...            read each VAR from the file that VAR_FILE names, and export it
#   tls                      whether this service is to speak TLS
#   profile NAME             whether NAME is among SHUDL_PROFILES, the profiles that Compose was given
#   signs_in                 whether people sign in by Keycloak: its profile is among them
#   render TEMPLATE FILE     replace each ${NAME} in TEMPLATE by the variable NAME, and $$ by $; FILE is readable by its owner only
#   append TEMPLATE FILE     render TEMPLATE to the end of FILE
#   wait_for HOST PORT S     wait until HOST:PORT accepts a connection, at most S seconds
#   wait_for_any PORT S HOST...  wait until one of them does
#   kafka_login              sets KAFKA_SASL_MECHANISM (SCRAM-SHA-512 by default) and the module of Java that signs in so
#   jmx_agent                sets `agent` to the JVM option by which Prometheus reads config/jmx.yml on JMX_EXPORTER_PORT, if set
#   die TEXT                 stop, saying why
#
# TLS, for all services alike:
#   TLS_CERT_FILE, TLS_KEY_FILE, TLS_CA_FILE  PEM files; with all three the service speaks TLS and nothing else
#   TLS_CA_FILE              alone: the authority that its clients trust, instead of those of the system
#   TLS_TRUSTSTORE_FILE      the same for JVMs: PKCS#12 without a password
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)
service=$(basename "$here")

die() {
    echo "$service: $*" >&2
    exit 64
}

need() {
    local name
    for name in "$@"; do
        [ -n "${!name:-}" ] || die "$name must be set"
    done
}

secret() {
    local name file
    for name in "$@"; do
        file="${name}_FILE"
        need "$file"
        [ -r "${!file}" ] || die "$file=${!file} cannot be read"
        export "$name=$(<"${!file}")"
        [ -n "${!name}" ] || die "$file=${!file} is empty"
    done
}

tls() {
    [ -n "${TLS_CERT_FILE:-}" ]
}

profile() {
    [[ ,${SHUDL_PROFILES:-}, == *,"$1",* ]]
}

signs_in() {
    profile access || profile full
}

trust() { # Called below: checks the files of TLS and has the clients of this process trust TLS_CA_FILE.
    local name
    [ -z "${TLS_CERT_FILE:-}${TLS_KEY_FILE:-}" ] || need TLS_CERT_FILE TLS_KEY_FILE TLS_CA_FILE
    for name in TLS_CERT_FILE TLS_KEY_FILE TLS_CA_FILE TLS_TRUSTSTORE_FILE; do
        [ -z "${!name:-}" ] || [ -r "${!name}" ] || die "$name=${!name} cannot be read"
    done
    if [ -n "${TLS_CA_FILE:-}" ]; then
        export SSL_CERT_FILE=$TLS_CA_FILE REQUESTS_CA_BUNDLE=$TLS_CA_FILE AWS_CA_BUNDLE=$TLS_CA_FILE CURL_CA_BUNDLE=$TLS_CA_FILE
    fi
    if [ -n "${TLS_TRUSTSTORE_FILE:-}" ]; then
        JAVA_TOOL_OPTIONS="${JAVA_TOOL_OPTIONS:+$JAVA_TOOL_OPTIONS }-Djavax.net.ssl.trustStore=$TLS_TRUSTSTORE_FILE"
        export JAVA_TOOL_OPTIONS="$JAVA_TOOL_OPTIONS -Djavax.net.ssl.trustStoreType=PKCS12"
    fi
}

render() {
    local template=$1 file=$2 text out='' name
    [ -r "$template" ] || die "$template cannot be read"
    IFS= read -r -d '' text <"$template" || true
    while [[ $text == *'$'* ]]; do
        out+=${text%%'$'*}
        text=${text#*'$'}
        if [[ $text == '$'* ]]; then
            out+='$'
            text=${text#'$'}
        elif [[ $text =~ ^\{([A-Z][A-Z0-9_]*)\} ]]; then
            name=${BASH_REMATCH[1]}
            [ -n "${!name+set}" ] || die "$name must be set: $template needs it"
            out+=${!name}
            text=${text#*'}'}
        else
            die "$template: a \$ must begin \${NAME} or \$\$, before: ${text%%$'\n'*}"
        fi
    done
    mkdir -p "$(dirname "$file")"
    (umask 077 && printf %s "$out$text" >"$file.new")
    mv "$file.new" "$file"
}

append() {
    render "$1" "$2.part"
    cat "$2.part" >>"$2"
    rm "$2.part"
}

jmx_agent() {
    agent=()
    [ -n "${JMX_EXPORTER_PORT:-}" ] || return 0
    agent=("-javaagent:$(echo "$KAFKA_LIBS"/jmx_prometheus_javaagent-*.jar)=0.0.0.0:$JMX_EXPORTER_PORT:$here/config/jmx.yml")
}

wait_for() {
    wait_for_any "$2" "$3" "$1"
}

wait_for_any() {
    local port=$1 deadline=$((SECONDS + $2)) host hosts=("${@:3}")
    while true; do
        for host in "${hosts[@]}"; do
            if (exec 3<>"/dev/tcp/$host/$port") 2>/dev/null; then return; fi
        done
        [ "$SECONDS" -lt "$deadline" ] || die "${hosts[*]/%/:$port} did not answer within $2 s"
        sleep 0.3
    done
}

kafka_login() {
    KAFKA_SASL_MECHANISM=${KAFKA_SASL_MECHANISM:-SCRAM-SHA-512}
    case $KAFKA_SASL_MECHANISM in
        SCRAM-SHA-256 | SCRAM-SHA-512) KAFKA_LOGIN_MODULE=org.apache.kafka.common.security.scram.ScramLoginModule ;;
        PLAIN) KAFKA_LOGIN_MODULE=org.apache.kafka.common.security.plain.PlainLoginModule ;;
        *) die "KAFKA_SASL_MECHANISM=$KAFKA_SASL_MECHANISM: must be SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN" ;;
    esac
}

trust
