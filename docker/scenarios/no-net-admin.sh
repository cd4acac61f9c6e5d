#!/usr/bin/env bash
# Without NET_ADMIN the gateway does not start, and names the flag that is missing.
# shellcheck source=docker/lib.sh
source "$(dirname "$0")/../lib.sh"

lab_up
folder=$(config_with_token any)
later "rm -r $folder"
start "$folder" "$TUN"
said_once "CAP_NET_ADMIN" "--cap-add NET_ADMIN"
