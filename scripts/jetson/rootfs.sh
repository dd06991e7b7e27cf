#!/usr/bin/env bash
# Installs the packages into Linux_for_Tegra/rootfs, so that a board has them from its first boot.
#
#   scripts/jetson.sh rootfs L4T_DIR [OPTION...]
#
#   --bundle DIR             also put this bundle into /var/lib/pi0-edge/bundles; may be repeated
#   --without-onnxruntime    leave out the CPU build of ONNX Runtime
#   --openrm                 the root file system is for a Thor (only where the release serves Orin too)
#
# By the BSP's own `apply_binaries.sh --extra-pkg` where it has that, else by dpkg inside the root file system, under
# emulation. Engines are not part of an image: pi0-edge-prepare.service builds them at first boot, on the device.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/l4t.sh"
. "$(dirname "$0")/emulation.sh"
case ${1:-} in -h | --help) usage && exit ;; esac
use_l4t "${1:-}"
shift
bundles=() packages=(pi0-edge pi0-edge-onnxruntime) openrm=()
while [ $# -gt 0 ]; do
    case $1 in
    --bundle)
        [ -f "${2:-}/manifest.json" ] || fail "${2:-} has no manifest.json: is it a bundle?"
        bundles+=("$(cd "$2" && pwd)") && shift
        ;;
    --without-onnxruntime) packages=(pi0-edge) ;;
    --openrm) openrm=(--openrm) ;;
    *) wrong_use "no argument called $1" ;;
    esac
    shift
done
[ "$release" != 38 ] || openrm=(--openrm) # this release serves Thor alone

debs=()
for package in "${packages[@]}"; do
    deb=$(newest_deb "$package" arm64)
    debs+=("$deb")
done

# Every dependency must be in the root file system already: dpkg fetches nothing.
installed() { dpkg-query --admindir="$rootfs/var/lib/dpkg" -W -f '${Version}' "$1" 2>/dev/null; }
for deb in "${debs[@]}"; do
    while read -r package _ wanted; do
        version=$(installed "$package") || fail "$rootfs has no $package, which $(basename "$deb") needs"
        dpkg --compare-versions "$version" ge "${wanted:-0}" ||
            fail "$rootfs has $package $version; $(basename "$deb") needs $wanted or newer"
    done < <(dpkg-deb -f "$deb" Depends | tr ',' '\n' | tr -d '()')
done

options=$("$l4t/apply_binaries.sh" --help 2>&1 || true) # its help ends with exit code 1
if grep -q -- '--extra-pkg ' <<<"$options"; then
    extra=()
    for deb in "${debs[@]}"; do extra+=(--extra-pkg "$deb"); done
    as_root "$l4t/apply_binaries.sh" "${openrm[@]}" "${extra[@]}"
else
    emulate "$rootfs"
    inside=/var/cache/pi0-edge/packages
    as_root mkdir -p "$rootfs$inside"
    as_root cp "${debs[@]}" "$rootfs$inside/"
    as_root env LC_ALL=C chroot "$rootfs" dpkg -i "${debs[@]/#*\//$inside/}"
    as_root rm -r "$rootfs$inside"
fi
if [ -z "$dry_run" ]; then
    for deb in "${debs[@]}"; do
        package=$(dpkg-deb -f "$deb" Package)
        [ "$(installed "$package")" = "$(dpkg-deb -f "$deb" Version)" ] || fail "$(basename "$deb") did not get into $rootfs"
    done
fi
as_root mkdir -p "$rootfs/var/lib/pi0-edge/bundles"
for bundle in "${bundles[@]}"; do
    as_root cp -RL --remove-destination --no-preserve=ownership "$bundle" "$rootfs/var/lib/pi0-edge/bundles/"
done
# What `systemctl enable` would do, without running the root file system's own.
as_root mkdir -p "$rootfs/etc/systemd/system/multi-user.target.wants"
as_root ln -sf /usr/lib/systemd/system/pi0-edge-prepare.service \
    "$rootfs/etc/systemd/system/multi-user.target.wants/pi0-edge-prepare.service"

emulate "$rootfs"
as_root chroot "$rootfs" pi0-edge --version
say "installed in $rootfs: ${packages[*]}${bundles[*]:+, bundles ${bundles[*]##*/}}"
