#!/usr/bin/env bash
# A client that is connected goes on while the portal is away, and the gateway counts as healthy.
# shellcheck source=docker/lib.sh
source "$(dirname "$0")/../lib.sh"

lab_up
later "docker start $(of portal)"
docker stop "$(of portal)" >/dev/null
page "$APP" >/dev/null || fail "no page without the portal"
name="$(now_ms).lab.example"
page "$name" >/dev/null || fail "no page of a new name without the portal"
health=$(in_gateway health) || fail "unhealthy without the portal: $health"
page "$APP" >/dev/null || fail "no page without the portal a second time"
begun=$(now_ms)
docker start "$(of portal)" >/dev/null
until_ok 60 gateway_is_ready || fail "the portal is not joined again: $(in_gateway health)"
back=$(since_ms "$begun")
page "$APP" >/dev/null || fail "no page after the portal is back"
pass "pages without the portal, new names too; health: \"$health\"; joined again after $back"
