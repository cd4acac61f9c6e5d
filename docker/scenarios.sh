#!/usr/bin/env bash
# Runs the scenarios, all of them or those that are named, against one lab, and sums up. Needs both
# images (docker/image.sh). Ends with 1 if one fails.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=docker/lib.sh
source ./lib.sh
trap - ERR

# The ones that restart the gateway come last.
ALL=(
    curl-by-name portal-down dns-dead-then-back
    token-missing token-wrong config-wrong no-tun-device no-net-admin no-new-privileges
    gateway-killed-and-restarted kill-under-traffic told-to-stop
)
for file in scenarios/*.sh; do
    [[ " ${ALL[*]} " == *" $(basename "$file" .sh) "* ]] || ALL+=("$(basename "$file" .sh)")
done
[ "$#" -eq 0 ] || ALL=("$@")

security() {
    printf 'the gateway runs as %s\n' "$(inspect gateway 'user {{.Config.User}}, capabilities
dropped {{.HostConfig.CapDrop}}, added {{.HostConfig.CapAdd}}, devices
{{range .HostConfig.Devices}}{{.PathOnHost}}{{end}}, read-only root file system
{{.HostConfig.ReadonlyRootfs}}, privileged {{.HostConfig.Privileged}}' | tr '\n' ' ')"
}

table=()
failed=0
export POSTERN_KEEP_LAB=1
trap lab_down EXIT
lab_down
begun=$(now_ms)
lab_up
printf 'the lab is up, with a first page, after %s\n' "$(since_ms "$begun")"
security
for name in "${ALL[@]}"; do
    printf '\n-- %s: %s\n' "$name" "$(sed -n '2s/^# //p' "scenarios/$name.sh")"
    begun=$(now_ms)
    output=$("scenarios/$name.sh" 2>&1) || failed=$((failed + 1))
    printf '%s\n' "$output"
    verdict=$(printf '%s\n' "$output" | grep -E '^(PASS|FAIL) ' | tail -1 || true)
    table+=("$(printf '%-4s %-29s %10s  %s' "${verdict:0:4}" "$name" "$(since_ms "$begun")" \
        "${verdict#*: }")")
done
printf '\n== scenarios: %s of %s passed\n' "$((${#ALL[@]} - failed))" "${#ALL[@]}"
printf '%s\n' "${table[@]}"
[ "$failed" -eq 0 ]
