#!/usr/bin/env bash
# A key that does not exist is refused in one line, with its place and the key that was meant.
# shellcheck source=docker/lib.sh
source "$(dirname "$0")/../lib.sh"

lab_up
folder=$(config_with_token any)
later "rm -r $folder"
printf '[network]\nudp_prot = 1\n' >>"$folder/gateway.toml"
start "$folder" "$USUAL"
said_once "/etc/postern/gateway.toml:5" "udp_prot" "udp_port"
