#!/usr/bin/env bash
# How many instructions a packet costs between the socket and the TUN, counted by callgrind and held
# against crates/core/benches/instructions.txt: more than 3 % more is an error. Another kind of
# processor runs another cipher, so there the figures are told, not judged.
#
#   instructions.sh            compares
#   instructions.sh --accept   writes the figures down as those to be held against
set -euo pipefail
cd "$(dirname "$0")/../../.."
readonly BASELINE=crates/core/benches/instructions.txt
# As many packets as the program lets through.
readonly PACKETS=9800
readonly MOST_PERCENT=103

processor() { sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1; }

program() {
    local built
    if ! built=$(cargo bench --locked -p postern-core --bench instructions --no-run 2>&1); then
        printf '%s\n' "$built" >&2
        return 1
    fi
    sed -n 's/.*Executable.*(\(.*\))$/\1/p' <<<"$built"
}

# What happens in Scene::inbound or Scene::outbound, for each packet.
count() {
    local direction=$1 load=$2 said
    said=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null \
        --toggle-collect="*Scene*$direction*" "$program" "$direction" "$load" 2>&1)
    awk -v packets="$PACKETS" '/Collected :/ { printf "%d\n", $4 / packets; found = 1 }
        END { exit !found }' <<<"$said" || { printf '%s\n' "$said" >&2; return 1; }
}

measure() {
    local direction load
    for direction in inbound outbound; do
        for load in tcp-by-address tcp-by-name udp-64-by-name; do
            printf '%s %s %s\n' "$direction" "$load" "$(count "$direction" "$load")"
        done
    done
}

program=$(program)
figures=$(measure)
if [ "${1:-}" = --accept ]; then
    printf 'processor %s\n%s\n' "$(processor)" "$figures" >"$BASELINE"
    cat "$BASELINE"
    exit
fi
is_same=1
grep -qxF "processor $(processor)" "$BASELINE" || is_same=0
awk -v most="$MOST_PERCENT" -v judges="$is_same" '
    NR == FNR { if ($1 != "processor") before[$1 " " $2] = $3; next }
    {
        path = $1 " " $2
        if (!(path in before)) { printf "%-24s %6d, and no figure to hold it against\n", path, $3; bad = 1; next }
        percent = 100 * $3 / before[path]
        word = percent > most ? (judges ? "TOO MANY" : "more") : ""
        printf "%-24s %6d instructions a packet, %5.1f %% of %d %s\n", path, $3, percent, before[path], word
        if (percent > most && judges) bad = 1
    }
    END {
        if (!judges) print "the baseline is of another processor: told, not judged"
        if (bad) print "if it is worth it: crates/core/benches/instructions.sh --accept"
        exit bad
    }' "$BASELINE" - <<<"$figures"
