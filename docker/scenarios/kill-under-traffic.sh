#!/usr/bin/env bash
# A gateway that is killed under traffic has its clients back in 2 s; without its state in 20 s.
# shellcheck source=docker/lib.sh
source "$(dirname "$0")/../lib.sh"

# In the client's container: a reply to a ping every 20 ms with its time, and how a download ended.
readonly REPLIES=/run/replies
readonly DOWNLOAD=/run/download

ping_begins() {
    docker exec --detach "$(of client)" \
        sh -c "echo \$\$ >$REPLIES.pid; exec ping -4 -D -i 0.02 -w 60 $APP >$REPLIES"
    until_ok 10 replied_since 0 || fail "no reply to a ping"
}

# A line every 20 ms, for ten seconds.
download_begins() {
    docker exec --detach "$(of client)" sh -c \
        "rm -f $DOWNLOAD.*;
         curl --silent --no-buffer --max-time 30 http://$APP/drip/10 >$DOWNLOAD.part
         echo \$? >$DOWNLOAD.code"
    until_ok 10 in_client grep drip "$DOWNLOAD.part" || fail "the download does not begin"
}

# replied_since MILLISECONDS: when the first reply after that came; fails if there is none.
replied_since() {
    # shellcheck disable=SC2016 # awk's own
    in_client awk -v since="$1" -F '[][]' '
        /bytes from/ && $2 * 1000 > since { printf "%.0f\n", $2 * 1000; found = 1; exit }
        END { exit !found }' "$REPLIES"
}

# The longest time between two replies, in milliseconds.
longest_silence() {
    # shellcheck disable=SC2016 # awk's own
    in_client awk -F '[][]' '
        /bytes from/ { if (last && $2 - last > gap) gap = $2 - last; last = $2 }
        END { printf "%.0f\n", gap * 1000 }' "$REPLIES"
}

# kill_gateway keep|forget: leaves in BACK the time from its new start to the first reply, and in
# SILENCE that between the last reply before and the first one after.
kill_gateway() {
    local started
    ping_begins
    docker kill --signal KILL "$(of gateway)" >/dev/null
    [ "$1" = keep ] || docker exec "$(of keeper)" sh -c 'rm -f /run/postern/gateway.state*'
    docker start "$(of gateway)" >/dev/null
    started=$(started_ms gateway)
    until_ok 30 replied_since "$started" || fail "no reply within 30 s ($1 the state)"
    BACK=$(($(replied_since "$started") - started))
    SILENCE=$(longest_silence)
    in_client sh -c "kill \$(cat $REPLIES.pid)"
}

lab_up
download_begins
kill_gateway keep
with="$(seconds_of "$BACK") from its start (silence of $(seconds_of "$SILENCE"))"
[ "$BACK" -lt 2000 ] || fail "with state: back after $with"
# What becomes of the download is told, not judged: that it always goes on, with several names
# behind one address, is not measured yet.
until_ok 40 in_client test -e "$DOWNLOAD.code" || fail "the download does not end"
code=$(in_client cat "$DOWNLOAD.code")
case "$code" in
    0) download="the download lived through it" ;;
    *) download="the download broke (curl's code $code)" ;;
esac
until_ok 20 page "$APP" || fail "no page afterwards"
kill_gateway forget
# Nearly all of it is the patience of the client, 20 s, before it gives the path up.
without="$(seconds_of "$BACK") (silence of $(seconds_of "$SILENCE"))"
[ "$BACK" -lt 22000 ] || fail "without state: back after $without"
pass "with state back $with, $download; without $without"
