# Shared by every entrypoint. Sourced, never run.
#   need VAR...              stop, naming the first variable that is not set
#   secret VAR...            read each VAR from the file that VAR_FILE names, and export it
#   render TEMPLATE FILE     replace ${NAME} in TEMPLATE from the environment; FILE is readable by its owner only
#   wait_for HOST PORT S     wait until HOST:PORT accepts a connection, at most S seconds
#   as_postgres_user CMD...  (in postgres/) see there
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

render() {
    local out=$2
    mkdir -p "$(dirname "$out")"
    (umask 077 && envsubst <"$1" >"$out.new") || die "cannot render $1"
    mv "$out.new" "$out"
}

wait_for() {
    local host=$1 port=$2 deadline=$((SECONDS + $3))
    until (exec 3<>"/dev/tcp/$host/$port") 2>/dev/null; do
        [ "$SECONDS" -lt "$deadline" ] || die "$host:$port did not answer within $3 s"
        sleep 0.3
    done
}

export PATH="$here/../common/bin:$PATH"
