#!/usr/bin/env bash
# A gateway without a token does not start, and says in one line where to put it.
# shellcheck source=docker/lib.sh
source "$(dirname "$0")/../lib.sh"

lab_up
folder=$(config_with_token none)
later "rm -r $folder"
rm "$folder/token"
start "$folder" "$USUAL"
said_once "/etc/postern/gateway.toml:3" "token"
