#!/usr/bin/env bash
# Makes the mass-flash package of a board for production, with no board attached.
#
#   scripts/jetson.sh image L4T_DIR BOARD [OPTION...]
#
#   --count N          how many boards the factory flashes at a time (5)
#   --nvme             put the root file system of an AGX Orin on its NVMe drive
#   --config NAME      the configuration of your carrier board, NAME.conf in L4T_DIR
#   --layout FILE      another partition layout of the drive, --qspi-layout FILE of the boot flash; within L4T_DIR
#
# BOARDID, BOARDSKU, FAB, BOARDREV and CHIP_SKU come from the table of boards; set in the environment, they win.
# All boards that one package is flashed to must be the same hardware.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/l4t.sh"
case ${1:-} in -h | --help) usage && exit ;; esac
use_l4t "${1:-}"
use_board "${2:-}"
flash_options "${@:3}"
expect_ready_rootfs

identity=("BOARDID=${BOARDID:-$table_id}" "BOARDSKU=${BOARDSKU:-$table_sku}")
fab=${FAB:-$table_fab} rev=${BOARDREV:-$table_rev}
[ "$fab" = - ] || identity+=("FAB=$fab")
[ "$rev" = - ] || identity+=("BOARDREV=$rev")
[ -z "${CHIP_SKU:-}" ] || identity+=("CHIP_SKU=$CHIP_SKU")

flash_words --no-flash --massflash "$count"
cd "$l4t"
as_root env "${identity[@]}" "${words[@]}"
package=$l4t/mfi_$config.tar.gz
[ -n "$dry_run" ] || [ -e "$package" ] || fail "the tools ended without an error, yet there is no $package"
say "mass-flash package for $module: $package
On the factory's machine, with up to $count boards in recovery mode:
    sudo tar xpf mfi_$config.tar.gz && cd mfi_$config
    sudo ./tools/kernel_flash/l4t_initrd_flash.sh --flash-only --massflash $count --network usb0$(
    [ "$release" -lt 38 ] || printf ' %s' "$config")"
