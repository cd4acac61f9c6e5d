# What the scenarios share: the lab of docker/compose.yml, waiting for conditions, and the one line
# that each ends with. To be sourced by them.
# shellcheck shell=bash
set -Eeuo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly HERE
readonly PROJECT="${POSTERN_PROJECT:-postern-lab}"
readonly IMAGE="postern:${POSTERN_TAG:-local}"
readonly APP=app.lab.example
readonly INTERNET="${PROJECT}_internet"
SCENARIO=$(basename "$0" .sh)
readonly SCENARIO
export COMPOSE_PROJECT_NAME="$PROJECT"

# ---- The end of a scenario

pass() {
    trap - ERR
    printf 'PASS %s: %s\n' "$SCENARIO" "$*"
    exit 0
}

fail() {
    trap - ERR
    printf 'FAIL %s: %s\n' "$SCENARIO" "$*"
    exit 1
}

trap 'fail "line $LINENO: $BASH_COMMAND"' ERR
# What a scenario leaves to be done, in the order that it was said.
LATER=()
later() { LATER+=("$*"); }
finish() {
    local action
    for action in "${LATER[@]}"; do
        eval "$action" >/dev/null 2>&1 || true
    done
    # Who runs them all takes the lab down once.
    [ -n "${POSTERN_KEEP_LAB:-}" ] || lab_down
}
trap finish EXIT

# ---- Time

now_ms() { date +%s%3N; }

# until_ok SECONDS COMMAND…: whether it succeeds before that.
until_ok() {
    local deadline=$((SECONDS + $1)) && shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.05
    done
}

# since_ms MILLISECONDS: "1.234 s".
since_ms() { seconds_of $(($(now_ms) - $1)); }
seconds_of() { printf '%d.%03d s' $(($1 / 1000)) $(($1 % 1000)); }

# ---- The lab

compose() {
    if docker compose version >/dev/null 2>&1; then
        docker compose --file "$HERE/compose.yml" "$@"
    else
        docker-compose --file "$HERE/compose.yml" "$@"
    fi
}

# The id of a service's container.
of() {
    docker ps --all --quiet --filter "label=com.docker.compose.project=$PROJECT" \
        --filter "label=com.docker.compose.service=$1"
}

in_client() { docker exec "$(of client)" "$@"; }
in_gateway() { docker exec "$(of gateway)" /usr/bin/postern "$@"; }
gateway_is_ready() { [[ "$(in_gateway health)" == ready* ]]; }

# page NAME: fetches a page through the tunnel, with a new connection.
page() { in_client curl --silent --show-error --fail --max-time 2 "http://$1/"; }

# Brings up what is not up, as it was at first, and waits for a page.
lab_up() {
    local log
    log=$(compose up --detach portal relay dns web keeper gateway client 2>&1) ||
        fail "the lab does not come up: $log"
    until_ok 60 page "$APP" ||
        fail "no page within 60 s; the gateway says: $(docker logs --tail 5 "$(of gateway)" 2>&1)"
}

lab_down() { compose down --volumes --timeout 5 >/dev/null 2>&1; }

# inspect SERVICE FORMAT
inspect() { docker inspect --format "$2" "$(of "$1")"; }

# address SERVICE NETWORK
address() { inspect "$1" "{{(index .NetworkSettings.Networks \"${PROJECT}_$2\").IPAddress}}"; }

# When a container's process began, in milliseconds.
started_ms() { date --date "$(inspect "$1" '{{.State.StartedAt}}')" +%s%3N; }

# ---- A gateway that cannot start

# The flags that a gateway is run with; the scenario leaves one out.
readonly NET_ADMIN="--cap-add NET_ADMIN"
readonly TUN="--device /dev/net/tun"
# shellcheck disable=SC2034 # for the scenarios
readonly USUAL="$NET_ADMIN $TUN"

# A configuration that would do, with the token TOKEN; says where.
config_with_token() {
    local folder
    folder=$(mktemp -d)
    chmod 0755 "$folder"
    cat >"$folder/gateway.toml" <<TOML
[portal]
url = "ws://$(address portal internet):8081"
token_file = "token"
TOML
    printf '%s\n' "$1" >"$folder/token"
    printf '%s\n' "$folder"
}

# start FOLDER FLAGS…: runs a gateway to its end, with nothing in its log but errors. Leaves what
# it said in SAID and its exit code in CODE.
start() {
    local folder=$1 container && shift
    # Each flag is a word of its own.
    # shellcheck disable=SC2068
    container=$(docker create --network "$INTERNET" --read-only --cap-drop ALL \
        --sysctl net.ipv4.ip_forward=1 --env POSTERN__LOG__FILTER=error \
        --tmpfs /run/postern:uid=65532,mode=0700 --tmpfs /var/lib/postern:uid=65532,mode=0700 \
        --volume "$folder:/etc/postern:ro" $@ "$IMAGE")
    later "docker rm --force $container"
    docker start "$container" >/dev/null
    CODE=$(timeout 30 docker wait "$container") || CODE="none: it still runs after 30 s"
    SAID=$(docker logs "$container" 2>&1)
}

# It must have said one line with all these words, and have ended with code 1.
said_once() {
    local word
    printf '%s\n(exit code %s)\n' "$SAID" "$CODE"
    [ "$CODE" = 1 ] || fail "exit code $CODE instead of 1"
    [ "$(printf '%s\n' "$SAID" | wc -l)" -eq 1 ] || fail "not one line"
    for word in "$@"; do
        [[ "$SAID" == *"$word"* ]] || fail "it does not name $word"
    done
    pass "one line, exit code 1"
}
