#!/usr/bin/env bash
# Where no-new-privileges keeps NET_ADMIN back the gateway says so, and what else would do.
# shellcheck source=docker/lib.sh
source "$(dirname "$0")/../lib.sh"

lab_up
folder=$(config_with_token any)
later "rm -r $folder"
start "$folder" "$USUAL --security-opt no-new-privileges"
said_once "CAP_NET_ADMIN" "no-new-privileges" "--user 0:0"
