#!/usr/bin/env bash
# Without /dev/net/tun the gateway does not start, and names the flag that is missing.
# shellcheck source=docker/lib.sh
source "$(dirname "$0")/../lib.sh"

lab_up
folder=$(config_with_token any)
later "rm -r $folder"
start "$folder" "$NET_ADMIN"
said_once "/dev/net/tun" "--device /dev/net/tun"
