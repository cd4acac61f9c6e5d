#!/usr/bin/env bash
# Known names go on while the DNS server is away, and a new one works soon after it is back.
# shellcheck source=docker/lib.sh
source "$(dirname "$0")/../lib.sh"

lab_up
later "docker start $(of dns)"
docker stop "$(of dns)" >/dev/null
name="$(now_ms).lab.example"
page "$name" >/dev/null 2>&1 && fail "a page of a name that nobody can have looked up"
page "$APP" >/dev/null || fail "no page of a name that was known before"
docker start "$(of dns)" >/dev/null
begun=$(now_ms)
until_ok 30 page "$name" || fail "no page of $name within 30 s of the DNS server's return"
pass "known names go on; the new one works $(since_ms "$begun") after the DNS server is back"
