#!/usr/bin/env bash
# Lists the boards that image and flash know.
#
#   scripts/jetson.sh boards
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/l4t.sh"
printf '%-22s %-52s %-12s %s\n' BOARD MODULE "L4T" "ROOT FILE SYSTEM"
sed '/^#/d' "$boards" | while read -r name _ _ releases storage _ _ _ _ _ module; do
    printf '%-22s %-52s %-12s %s\n' "$name" "$module" "$releases" "$storage"
done
