#!/usr/bin/env bash
# A gateway that is killed under traffic has its clients back in 2 s with its state, in 20 s without.
# shellcheck source=docker/lib.sh
source "$(dirname "$0")/../lib.sh"

# A reply every 20 ms, with its time, into a file of the client's container.
readonly REPLIES=/run/replies

ping_begins() {
    docker exec --detach "$(of client)" \
        sh -c "echo \$\$ >$REPLIES.pid; exec ping -D -i 0.02 -w 60 app.lab.example >$REPLIES"
    until_ok 10 replies_since 0 || fail "no reply to a ping"
}

# replies_since MILLISECONDS: when the first one after that came; fails if there is none.
replies_since() {
    # shellcheck disable=SC2016 # awk's own
    in_client awk -v since="$1" -F '[][]' '
        /bytes from/ && $2 * 1000 > since { printf "%.0f\n", $2 * 1000; found = 1; exit }
        END { exit !found }' "$REPLIES"
}

# The longest time between two replies, in milliseconds.
longest_gap() {
    # shellcheck disable=SC2016 # awk's own
    in_client awk -F '[][]' '
        /bytes from/ { if (last && $2 - last > gap) gap = $2 - last; last = $2 }
        END { printf "%.0f\n", gap * 1000 }' "$REPLIES"
}

# kill_gateway forget|keep: leaves in BACK the time from its new start to the first reply, and in GAP
# that between the last reply before and the first one after.
kill_gateway() {
    local started first
    ping_begins
    docker kill --signal KILL "$(of gateway)" >/dev/null
    [ "$1" = keep ] ||
        docker exec "$(of keeper)" sh -c 'rm -f /run/postern/gateway.state*'
    docker start "$(of gateway)" >/dev/null
    started=$(started_ms gateway)
    until_ok 30 replies_since "$started" || fail "no reply within 30 s ($1)"
    first=$(replies_since "$started")
    BACK=$((first - started))
    GAP=$(longest_gap)
    in_client sh -c "kill \$(cat $REPLIES.pid)"
}

lab_up
kill_gateway keep
with="$(seconds_of "$BACK") from its start (silence of $(seconds_of "$GAP") in all)"
[ "$BACK" -lt 2000 ] || fail "with state: back after $with"
until_ok 20 page "$APP" || fail "no page afterwards"
kill_gateway forget
without="$(seconds_of "$BACK") (silence of $(seconds_of "$GAP"))"
[ "$BACK" -lt 20000 ] || fail "without state: back after $without"
pass "with state back $with; without $without"
