#!/usr/bin/env bash
# A gateway that is killed and started again serves the client that it had, unasked.
# shellcheck source=docker/lib.sh
source "$(dirname "$0")/../lib.sh"

lab_up
docker kill --signal KILL "$(of gateway)" >/dev/null
code=$(inspect gateway '{{.State.ExitCode}}')
page "$APP" >/dev/null 2>&1 && fail "a page without a gateway"
docker start "$(of gateway)" >/dev/null
until_ok 20 page "$APP" || fail "no page within 20 s"
took=$(seconds_of $(($(now_ms) - $(started_ms gateway))))
pass "killed (exit code $code); a page $took after it began again"
