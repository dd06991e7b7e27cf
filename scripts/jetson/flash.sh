#!/usr/bin/env bash
# Flashes the one board that is in recovery mode. Everything on it is lost.
#
#   scripts/jetson.sh flash L4T_DIR BOARD [OPTION...]
#
#   --nvme             put the root file system of an AGX Orin on its NVMe drive
#   --config NAME      the configuration of your carrier board, NAME.conf in L4T_DIR
#   --layout FILE      another partition layout of the drive, --qspi-layout FILE of the boot flash; within L4T_DIR
#
# Prints the command, and runs it once the board's name has been typed.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/l4t.sh"
case ${1:-} in -h | --help) usage && exit ;; esac
use_l4t "${1:-}"
use_board "${2:-}"
flash_options "${@:3}"
expect_ready_rootfs

# NVIDIA's product ids end in 20 while a system runs; those of the table are recovery mode's.
recovery_boards() {
    local device
    for device in "${PI0_EDGE_USB_DEVICES:-/sys/bus/usb/devices}"/*/; do
        [ "$(cat "$device/idVendor" 2>/dev/null)" = 0955 ] || continue
        awk -v usb="$(cat "$device/idProduct")" '$6 == usb {print usb; exit}' "$boards"
    done
}
mapfile -t found < <(recovery_boards)
case ${#found[@]} in
0) problem="no board is in recovery mode: hold its recovery button while switching it on, and connect the flashing port" ;;
1) problem= ;;
*) problem="${#found[@]} boards are in recovery mode (0955:${found[*]}); leave one connected, or use image" ;;
esac
if [ -z "$problem" ] && [ "${found[0]}" != "$usb" ]; then
    problem="the board in recovery mode is 0955:${found[0]}; $module would be 0955:$usb"
fi
if [ -n "$problem" ]; then
    [ -n "$dry_run" ] || fail "$problem"
    say "note: $problem"
fi

# shellcheck disable=SC2119  # it takes no more words here
flash_words
say "to be run in $l4t:"
say "    $(quoted sudo "${words[@]}")"
confirm "$board" "This erases the $module that is connected."
cd "$l4t"
as_root "${words[@]}"
