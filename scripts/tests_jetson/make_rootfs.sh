#!/usr/bin/env bash
# Makes a Debian root file system for tests, in .cache/jetson, and prints where. Needs root, a network and minutes;
# kept for the next time.
#
#   scripts/tests_jetson/make_rootfs.sh arm64 [bookworm|bullseye]     glibc 2.36, or 2.31 as in JetPack 5
#   scripts/tests_jetson/make_rootfs.sh amd64                         with systemd, to be booted by boot.sh
. "$(dirname "$0")/../jetson/lib.sh"
. "$(dirname "$0")/../jetson/debian.sh"
. "$(dirname "$0")/../jetson/emulation.sh"
use_arch "${1:-}"
suite=${2:-bookworm}
root=$cache/rootfs-$suite-$arch
[ "$(id -u)" = 0 ] || fail "needs root"
if [ ! -e "$root/.complete" ]; then
    private_apt debootstrap
    unpack debootstrap debootstrap
    rm -rf "$root"
    mirror=$(sed -n 's/^URIs: *//p' "$cache/apt/sources/debian.sources" | head -1)
    say "making an $arch $suite root file system: some minutes"
    case $arch in
    arm64) options=(--foreign --include=libstdc++6) ;;
    amd64) options=("--include=libstdc++6,systemd-sysv,dbus,udev,python3-minimal") ;;
    esac
    DEBOOTSTRAP_DIR=$cache/debootstrap/usr/share/debootstrap "$cache/debootstrap/usr/sbin/debootstrap" --arch="$arch" \
        --variant=minbase "${options[@]}" "$suite" "$root" "$mirror" >"$root.log" 2>&1 ||
        fail "debootstrap failed: see $root.log"
    if [ "$arch" = arm64 ]; then
        emulate "$root"
        LC_ALL=C chroot "$root" /debootstrap/debootstrap --second-stage >>"$root.log" 2>&1 || fail "see $root.log"
    fi
    touch "$root/.complete"
fi
printf '%s\n' "$root"
