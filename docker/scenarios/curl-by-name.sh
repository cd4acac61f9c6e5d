#!/usr/bin/env bash
# A client fetches a page by name from a server that it has no way to but the gateway.
# shellcheck source=docker/lib.sh
source "$(dirname "$0")/../lib.sh"

lab_up
text=$(page "$APP")
[[ "$text" == *"came from $(address keeper office):"* ]] || fail "not by the gateway: $text"
took=$(in_client curl --silent --output /dev/null --write-out '%{time_total}' \
    "http://$(now_ms).lab.example/")
printf '%s\n' "$text"
pass "a page by name, from the gateway's address; a name never asked for took $took s"
