#!/usr/bin/env bash
# Every program, as the first process of its container, ends at once and with 0 when it is told to.
# shellcheck source=docker/lib.sh
source "$(dirname "$0")/../lib.sh"

lab_up
slowest=0
for service in client gateway portal relay dns web; do
    later "docker start $(of "$service")"
    begun=$(now_ms)
    docker stop --time 10 "$(of "$service")" >/dev/null
    took=$(($(now_ms) - begun))
    code=$(inspect "$service" '{{.State.ExitCode}}')
    printf '%-8s %s, exit code %s\n' "$service" "$(seconds_of "$took")" "$code"
    [ "$code" = 0 ] || fail "$service ended with $code"
    [ "$took" -le "$slowest" ] || slowest=$took
done
[ "$slowest" -lt 5000 ] || fail "the slowest took $(seconds_of "$slowest")"
pass "exit code 0 from all of them, the slowest after $(seconds_of "$slowest")"
