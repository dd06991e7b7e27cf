# shellcheck shell=bash
# A Linux_for_Tegra directory and the boards it can flash. Sourced after lib.sh.
# shellcheck disable=SC2154,SC2034  # lib.sh sets them, the commands use them

boards=$project/scripts/jetson/boards.tsv

# Checks that DIR is a BSP with a root file system that NVIDIA's packages were applied to.
use_l4t() {
    [ -n "${1:-}" ] || wrong_use "the Linux_for_Tegra directory is missing"
    [ -x "$1/apply_binaries.sh" ] || fail "$1 has no apply_binaries.sh: it is not a Linux_for_Tegra directory"
    l4t=$(cd "$1" && pwd)
    rootfs=$l4t/rootfs
    [ -e "$rootfs/etc/passwd" ] || fail "$rootfs is empty: unpack NVIDIA's sample root file system into it, with sudo tar"
    [ "$(stat -c %u "$rootfs/etc/passwd")" = 0 ] || fail "$rootfs does not belong to root: unpack it again, with sudo tar"
    [ -e "$rootfs/etc/nv_tegra_release" ] || fail "$rootfs has no NVIDIA packages yet: run" \
        "sudo $l4t/tools/l4t_flash_prerequisites.sh and then sudo $l4t/apply_binaries.sh (for Thor with --openrm)"
    release=$(sed -n 's/^# R\([0-9]*\) (release), REVISION: \([0-9.]*\).*/\1 \2/p' "$rootfs/etc/nv_tegra_release" | head -1)
    [ -n "$release" ] || fail "cannot read the release in $rootfs/etc/nv_tegra_release"
    revision=${release#* }
    release=${release% *}
    say "Jetson Linux $release.$revision in $l4t"
}

# One row of the table, checked against the release in hand.
use_board() {
    board=${1:-}
    [ -n "$board" ] || wrong_use "the board is missing; scripts/jetson.sh boards lists them"
    local row
    row=$(awk -v name="$board" '$1 == name' "$boards")
    [ -n "$row" ] || fail "no board called $board; scripts/jetson.sh boards lists them"
    read -r _ chip config releases storage usb table_id table_sku table_fab table_rev module <<<"$row"
    case ,$releases, in
    *,$release,*) ;;
    *) fail "Jetson Linux $release does not support $module; it needs ${releases//,/ or }" ;;
    esac
}

# The first of some files that this release has.
layout() { # WHAT FILE...
    local what=$1 file
    shift
    for file; do
        [ ! -e "$l4t/$file" ] || { printf '%s\n' "$file" && return; }
    done
    fail "this release has none of the $what layouts known for it: $*; name one with --layout or --qspi-layout"
}

# The words of l4t_initrd_flash.sh for the board: where its root file system goes, and by which partition layouts.
flash_words() { # EXTRA...
    local layouts=() external qspi
    case $chip-$storage in
    t264-*) ;; # the board's own configuration names its layouts
    t234-emmc)
        if [ -n "$nvme" ]; then
            external=$(nvme_layout)
            layouts=(--external-device nvme0n1p1 -c "$external")
        fi
        ;;
    t234-nvme)
        external=$(nvme_layout)
        qspi=$(boot_layout)
        layouts=(--external-device nvme0n1p1 -c "$external" -p "-c $qspi")
        ;;
    esac
    words=(./tools/kernel_flash/l4t_initrd_flash.sh "$@" "${layouts[@]}" --showlogs --network usb0 "$config" "${nvme:-internal}")
}

boot_layout() {
    if [ -n "$qspi_layout" ]; then
        printf '%s\n' "$qspi_layout"
    elif [ "$release" = 35 ]; then
        layout QSPI bootloader/t186ref/cfg/flash_t234_qspi.xml
    else
        layout QSPI bootloader/generic/cfg/flash_t234_qspi.xml
    fi
}

nvme_layout() {
    if [ -n "$external_layout" ]; then
        printf '%s\n' "$external_layout"
    elif [ "$release" = 35 ]; then
        layout NVMe tools/kernel_flash/flash_l4t_external.xml
    else
        layout NVMe tools/kernel_flash/flash_l4t_t234_nvme.xml tools/kernel_flash/flash_l4t_external.xml
    fi
}

# The options that image and flash share. Sets nvme, external_layout, qspi_layout, config and count.
flash_options() {
    nvme='' external_layout='' qspi_layout='' count=5
    local custom=
    while [ $# -gt 0 ]; do
        case $1 in
        --nvme) nvme=external ;;
        --config | --layout | --qspi-layout | --count)
            [ -n "${2:-}" ] || wrong_use "$1 needs a value"
            case $1 in
            --config) custom=$2 ;;
            --layout) external_layout=$2 ;;
            --qspi-layout) qspi_layout=$2 ;;
            --count) count=$2 ;;
            esac
            shift
            ;;
        *) wrong_use "no argument called $1" ;;
        esac
        shift
    done
    [ -z "$nvme" ] || [ "$storage" = emmc ] || nvme= # it boots from NVMe in any case
    config=${custom:-$config}
    [ -e "$l4t/$config.conf" ] || fail "$l4t has no $config.conf: --config names the configuration of your carrier board"
}

# What must be true of a root file system before it goes onto a board.
expect_ready_rootfs() {
    dpkg-query --admindir="$rootfs/var/lib/dpkg" -W -f '${Status}\n' pi0-edge 2>/dev/null | grep -q ' installed$' ||
        fail "pi0-edge is not in $rootfs: run scripts/jetson.sh rootfs $l4t first"
    grep -q '^[^:]*:[^:]*:1[0-9][0-9][0-9]:' "$rootfs/etc/passwd" ||
        say "note: $rootfs has no user yet, so the board will ask for one on its screen at first boot;" \
            "$l4t/tools/l4t_create_default_user.sh makes one now"
}
