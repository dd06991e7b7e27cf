# shellcheck shell=bash
# Running arm64 programs inside an arm64 root file system. Sourced after lib.sh.
# shellcheck disable=SC2154  # lib.sh sets them

# Makes `chroot ROOT` work, and undoes on exit what it had to change. A machine with qemu-user-static installed (as
# NVIDIA's l4t_flash_prerequisites.sh does), or an arm64 machine, needs no change. Otherwise the kernel is told for the
# moment to run arm64 programs with setup's qemu.
emulate() {
    local root=$1 binfmt=/proc/sys/fs/binfmt_misc
    if [ -n "$dry_run" ] || as_root chroot "$root" /bin/true 2>/dev/null; then
        return
    fi
    [ -x "$cache/qemu-aarch64" ] || fail "arm64 programs do not run in $root: install qemu-user-static, or run" \
        "scripts/jetson.sh setup"
    trap stop_emulating EXIT
    if [ ! -e $binfmt/register ]; then
        as_root mount -t binfmt_misc none $binfmt
        mounted=1
    fi
    # F: the interpreter is opened now, so that the root file system needs no copy of it.
    local magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    local mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    printf '%s' ":pi0-edge-arm64:M::$magic:$mask:$(readlink -f "$cache/qemu-aarch64"):OCF" |
        as_root tee $binfmt/register >/dev/null
    registered=1
    as_root chroot "$root" /bin/true || fail "arm64 programs do not run in $root, not even with setup's qemu"
}

mounted='' registered=''
stop_emulating() {
    [ -z "$registered" ] || echo -1 | as_root tee /proc/sys/fs/binfmt_misc/pi0-edge-arm64 >/dev/null
    [ -z "$mounted" ] || as_root umount /proc/sys/fs/binfmt_misc
}
