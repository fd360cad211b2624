#!/usr/bin/env bash
# The Compose platform, from a host that has bash and Docker and need not have more. make's goals call it.
#   platform.sh secrets [NAME...]        make the missing secrets; each NAME is made anew
#   platform.sh certificates [NAME...]   make the missing certificates; each NAME is renewed (1: all whose turn it is)
#   platform.sh check                    say what keeps the platform from starting; changes nothing
#   platform.sh up                       check, start the control plane, create the rest
#   platform.sh down                     stop and remove all containers; volumes stay
#   platform.sh demo [OPTION...]         build, make and start what is missing, then run the demo
#   platform.sh compose ...              docker compose with this platform's files
# Python runs in the image shudl/airflow: without a network, and seeing docker/ only.
set -euo pipefail

here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
control_plane=(docker-filter fencer airflow-db airflow-api-server airflow-proxy airflow-scheduler airflow-dag-processor airflow-triggerer)
control_plane_ha=(airflow-api-server2 airflow-scheduler2 valkey airflow-worker1 airflow-worker2)
unset COMPOSE_FILE COMPOSE_PROJECT_NAME COMPOSE_ENV_FILES

die() {
    printf 'FAIL  %s\n    → %s\n' "$1" "$2" >&2
    exit 1
}

# The value of a setting: from the shell, else from docker/.env; empty when neither has it.
setting() {
    local line
    if [[ -n ${!1+set} ]]; then
        printf '%s' "${!1}"
    elif [[ -r $here/.env ]] && line=$(grep -E "^[[:space:]]*(export[[:space:]]+)?$1[[:space:]]*=" "$here/.env" | tail -n 1); then
        line=${line#*=}
        line=${line%%[[:space:]]#*}
        line=${line//[\"\']/}
        line=${line#"${line%%[![:space:]]*}"}
        printf '%s' "${line%"${line##*[![:space:]]}"}"
    fi
}

compose() {
    local files=(-f "$here/compose.yaml")
    [[ -z $(setting SHUDL_PAGES) ]] || files+=(-f "$here/compose.pages.yaml")
    [[ ! -e $here/external.yaml ]] || files+=(-f "$here/external.yaml")
    [[ ! -e $here/.env ]] || files+=(--env-file "$here/.env")
    docker compose "${files[@]}" "$@"
}

# Docker is there and answers; what Compose's configuration takes from this machine is known.
engine() {
    local told me way_out=https://docs.docker.com/engine/install/
    me=$(id -un 2>/dev/null) || me=$(id -u)
    command -v docker >/dev/null || die "Docker is not installed" "install it: $way_out"
    told=$(docker version --format '{{.Server.Version}}' 2>&1) || case $told in
        *'permission denied'*) die "Docker refuses $me: ${told//$'\n'/ }" "become a member of the socket's group: sudo usermod -aG docker $me, then sign in again" ;;
        *) die "Docker does not answer: ${told//$'\n'/ }" "start it: sudo systemctl start docker; or correct DOCKER_HOST" ;;
    esac
    docker compose version >/dev/null 2>&1 || die "docker compose is not installed" "install the plugin: https://docs.docker.com/compose/install/linux/"
    rootless=$(docker info --format '{{range .SecurityOptions}}{{println .}}{{end}}' | grep -c '^name=rootless' || true)

    VERSION=$(setting VERSION)
    VERSION=${VERSION:-$(<"$here/VERSION")}
    DOCKER_SOCKET=$(setting DOCKER_SOCKET)
    if [[ -z $DOCKER_SOCKET ]]; then
        DOCKER_SOCKET=$(docker context inspect --format '{{.Endpoints.docker.Host}}')
        DOCKER_SOCKET=${DOCKER_SOCKET#unix://}
    fi
    DOCKER_GID=$(setting DOCKER_GID)
    DOCKER_GID=${DOCKER_GID:-$(socket_gid)}
    export VERSION DOCKER_SOCKET DOCKER_GID
}

# The group of Docker's socket as containers see it; empty when there is no socket.
socket_gid() {
    [[ -S $DOCKER_SOCKET ]] || return 0
    if [[ $rootless != 0 ]]; then
        echo 0
    else
        stat -L -c %g "$DOCKER_SOCKET"
    fi
}

# Runs include.platform.compose; as root, because it gives files to the services' user, who is not the caller.
#   tool readonly|writes ARGUMENT...
tool() {
    local image=shudl/airflow:$VERSION user options=()
    docker image inspect "$image" >/dev/null 2>&1 || die "image $image is not built" "make images"
    mkdir -p "$here/secrets" "$here/certificates"
    user=$(id -u):$(id -g)
    [[ $rootless == 0 ]] || user=0:0
    if [[ $1 == writes ]]; then
        options=(--cap-add CHOWN --cap-add DAC_OVERRIDE --cap-add FOWNER)
        options+=(--mount "type=bind,source=$here/secrets,target=/shudl/docker/secrets")
        options+=(--mount "type=bind,source=$here/certificates,target=/shudl/docker/certificates")
    else
        options=(--cap-add DAC_READ_SEARCH)
    fi
    [[ -z ${SHUDL_PUBLIC_NAMES+set} ]] || options+=(--env SHUDL_PUBLIC_NAMES)
    docker run --rm --interactive --network none --read-only --user 0:0 --cap-drop ALL --security-opt no-new-privileges \
        --no-healthcheck --memory 512m --pids-limit 128 --env PYTHONPATH=/opt/shudl --workdir / \
        --mount "type=bind,source=$here,target=/shudl/docker,readonly" "${options[@]}" \
        --entrypoint /opt/shudl/install/envs/airflow/bin/python "$image" -B -P -m include.platform.compose \
        --folder /shudl/docker --user "$user" "${@:2}"
}

# docker/external.yaml takes external services out of Compose's hands; made anew when it is not of today's setting and files.
external() {
    local told first='' file=$here/external.yaml
    told=$(setting SHUDL_EXTERNAL)
    if [[ -z $told ]]; then
        rm -f "$file"
        return
    fi
    [[ ! -e $file ]] || IFS= read -r first <"$file"
    if [[ $first != "# SHUDL_EXTERNAL=$told" || $here/compose.yaml -nt $file ]]; then
        tool readonly external "$told" >"$file.new" </dev/null || { rm -f "$file.new"; exit 1; }
        mv "$file.new" "$file"
    fi
}

# What only the host knows, in the words of include/platform/compose/facts.py.
facts() {
    local name out err
    printf 'folder\t%s\n' "$here"
    printf 'docker\t%s\n' "$(docker version --format '{{.Server.Version}}')"
    printf 'compose\t%s\n' "$(docker compose version --short)"
    printf 'socket\t%s\t%s\n' "$DOCKER_SOCKET" "$(socket_gid)"
    docker volume ls --format $'volume\t{{.Name}}'
    docker image ls --format $'image\t{{.Repository}}:{{.Tag}}'
    docker ps --no-trunc --format \
        $'container\t{{.Label "com.docker.compose.project"}}\t{{.Label "com.docker.compose.project.working_dir"}}\t{{.Names}}\t{{.Ports}}'
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | sed 's/^/listener\t/' || true
    ss -Hltnp 2>/dev/null | sed 's/^/holder\t/' || true
    while IFS= read -r name; do
        [[ -z ${!name+set} ]] || printf 'setting\t%s=%s\n' "$name" "${!name//$'\n'/ }"
    done < <(sed -n 's/^\([A-Z][A-Z0-9_]*\)=.*/\1/p' "$here/.env.example")
    err=$(mktemp)
    if out=$(compose config --format json 2>"$err"); then
        sed 's/^/config\t/' <<<"$out"
    else
        sed 's/^/refused\t/' "$err"
    fi
    rm -f "$err"
}

check() {
    facts | tool readonly check
}

images_are_built() {
    local image
    while IFS= read -r image; do
        [[ $image != shudl/* ]] || docker image inspect "$image" >/dev/null 2>&1 || return 1
    done < <(compose config --images && echo "shudl/airflow:$VERSION")
}

up() {
    local address host
    check
    if [[ ,$(setting COMPOSE_PROFILES), == *,ha,* ]]; then
        control_plane+=("${control_plane_ha[@]}")
    fi
    compose create
    compose up -d --no-recreate --wait --wait-timeout 600 "${control_plane[@]}"
    address=$(compose port airflow-proxy 8280)
    host=$(setting SHUDL_PUBLIC_NAMES)
    host=${host%%[ ,]*}
    cat <<EOF
Airflow: https://${host:-localhost}:${address##*:}  user admin, password in docker/secrets/airflow_admin
         (your browser trusts it with docker/certificates/ca.crt)
The other services are created; Airflow's DAG platform_bootstrap starts and checks them in order.
EOF
}

case ${1-} in
secrets | certificates)
    engine
    tool writes "$@" </dev/null
    ;;
check | up)
    engine
    external
    "$1"
    ;;
down)
    engine
    COMPOSE_PROFILES=$(compose config --profiles | paste -sd, -) compose down --remove-orphans
    ;;
demo)
    engine
    images_are_built || make -C "$here/.." images
    tool writes secrets </dev/null
    tool writes certificates </dev/null
    external
    up
    terminal=()
    [[ -t 0 && -t 1 ]] || terminal=(-T)
    compose run --rm "${terminal[@]}" cli demo "${@:2}"
    ;;
compose)
    engine
    external
    compose "${@:2}"
    ;;
*)
    sed -n '2,/^# Python/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
