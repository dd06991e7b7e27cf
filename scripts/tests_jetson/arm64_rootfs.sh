#!/usr/bin/env bash
# Makes an arm64 Debian root file system for tests, in .cache/jetson; prints where. Needs root, a network and minutes;
# kept for the next time.
#
#   scripts/tests_jetson/arm64_rootfs.sh [bookworm|bullseye]     glibc 2.36, or 2.31 as in JetPack 5
. "$(dirname "$0")/../jetson/lib.sh"
. "$(dirname "$0")/../jetson/debian.sh"
. "$(dirname "$0")/../jetson/emulation.sh"
suite=${1:-bookworm}
root=$cache/rootfs-$suite
[ "$(id -u)" = 0 ] || fail "needs root"
if [ ! -e "$root/.complete" ]; then
    private_apt debootstrap
    unpack debootstrap debootstrap
    rm -rf "$root"
    mirror=$(sed -n 's/^URIs: *//p' "$cache/apt/sources/debian.sources" | head -1)
    say "making an arm64 $suite root file system: some minutes"
    DEBOOTSTRAP_DIR=$cache/debootstrap/usr/share/debootstrap "$cache/debootstrap/usr/sbin/debootstrap" --arch=arm64 \
        --variant=minbase --foreign --include=libstdc++6 "$suite" "$root" "$mirror" >"$root.log" 2>&1 ||
        fail "debootstrap failed: see $root.log"
    emulate "$root"
    LC_ALL=C chroot "$root" /debootstrap/debootstrap --second-stage >>"$root.log" 2>&1 || fail "see $root.log"
    touch "$root/.complete"
fi
printf '%s\n' "$root"
