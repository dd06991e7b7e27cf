#!/usr/bin/env bash
# Boots a root file system that has systemd, in namespaces of its own, runs a script in it and shuts it down. Needs root.
#
#   scripts/tests_jetson/boot.sh ROOT SCRIPT     what the script says on stdout
set -euo pipefail
root=$1
if [ -z "${PI0_EDGE_IN_NAMESPACE:-}" ]; then
    rm -f "$root/var/log/boot-script"
    PI0_EDGE_IN_NAMESPACE=1 timeout 120 unshare --mount --pid --fork --uts --ipc --cgroup "$0" "$@" >/dev/null 2>&1 || true
    exec cat "$root/var/log/boot-script"
fi
install -m 0755 "$2" "$root/usr/local/bin/boot-script"
cat >"$root/usr/lib/systemd/system/boot-script.service" <<'UNIT'
[Service]
Type=oneshot
ExecStart=/bin/sh -c '/usr/local/bin/boot-script >/var/log/boot-script 2>&1; systemctl exit 0'
UNIT
cat >"$root/usr/lib/systemd/system/boot-script.target" <<'UNIT'
[Unit]
Requires=basic.target
Wants=boot-script.service
After=basic.target
UNIT
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs tmpfs "$root/sys/fs/cgroup" 2>/dev/null || true
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/shm" "$root/dev/pts"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
# This process is number 1 of its namespace, as systemd must be.
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    chroot "$root" /lib/systemd/systemd --unit=boot-script.target --show-status=0
