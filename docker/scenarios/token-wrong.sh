#!/usr/bin/env bash
# A token that the portal does not know ends the gateway with one line.
# shellcheck source=docker/lib.sh
source "$(dirname "$0")/../lib.sh"

lab_up
folder=$(config_with_token wrong)
later "rm -r $folder"
start "$folder" "$USUAL"
said_once "portal" "token"
