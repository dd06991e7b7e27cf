#!/usr/bin/env bash
# Runs a command inside an arm64 root file system, under emulation, with /proc and /sys. Needs root.
#
#   scripts/tests_jetson/in_rootfs.sh ROOT COMMAND...
. "$(dirname "$0")/../jetson/lib.sh"
. "$(dirname "$0")/../jetson/emulation.sh"
root=$1
exec 3>&2 2>/dev/null # only what the command says
emulate "$root"
# ONNX Runtime opens weight files by way of /proc.
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
trap 'umount "$root/proc" "$root/sys"; stop_emulating' EXIT
LC_ALL=C chroot "$@" 2>&3
