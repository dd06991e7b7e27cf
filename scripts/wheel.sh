#!/usr/bin/env bash
# Makes Python wheels: pi0_edge with libpi0_edge and ONNX Runtime (CPU) in it, and lerobot's plugin.
#
#   scripts/wheel.sh [--arch arm64|amd64] [--from DIR] [--out DIR]
#
#   --arch A     the processor (default: amd64)
#   --from DIR   where libpi0_edge.so for it is (default: what scripts/jetson.sh build --arch A made)
#   --out DIR    where the wheels go (default: target/wheels)
#
# The library must be one that the platform's tag promises: linked for glibc 2.28 or older, and needing nothing but glibc
# and libgcc_s. It is, from scripts/jetson.sh build; a plain cargo build links to this machine's glibc and is refused.
. "$(dirname "$0")/jetson/lib.sh"
use_arch amd64
from='' wheels=$project/target/wheels
while [ $# -gt 0 ]; do
    case $1 in
    --arch) use_arch "${2:-}" && shift ;;
    --from | --out)
        [ -n "${2:-}" ] || wrong_use "$1 needs a directory"
        if [ "$1" = --from ]; then from=$2; else mkdir -p "$2" && wheels=$(cd "$2" && pwd); fi
        shift
        ;;
    -h | --help) usage && exit ;;
    *) wrong_use "no argument called $1" ;;
    esac
    shift
done
cd "$project"
library=${from:-$out/$triple/release}/libpi0_edge.so
[ -f "$library" ] || fail "there is no $library: run scripts/jetson.sh build --arch $arch, or name another place by --from"
readelf -h "$library" | grep -q "Machine:.*$machine" || fail "$library is not for $arch"
needs=scripts/jetson/needs.sh
$needs gate "$glibc_floor" "$library" || fail "$library cannot go into a manylinux wheel; scripts/jetson.sh build makes one that can"
$needs packages "$library" >/dev/null
soname=$(readelf -d "$library" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')
onnxruntime=$cache/onnxruntime-$onnxruntime_arch
PI0_EDGE_ARCH=$onnxruntime_arch scripts/fetch_onnxruntime.sh "$onnxruntime"
$needs gate "$glibc_floor" "$onnxruntime/libonnxruntime.so.1"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r python/pi0_edge "$work/pi0_edge"
package=$work/pi0_edge/src/pi0_edge
install -m 0755 "$library" "$package/$soname"
install -m 0755 "$onnxruntime/libonnxruntime.so.1" "$package/libonnxruntime.so.1"
mkdir "$package/licenses"
cp LICENSE-MIT LICENSE-APACHE "$package/licenses"
sed "s|@ONNXRUNTIME_VERSION@|$(cut -d' ' -f1 "$onnxruntime/VERSION")|g" packaging/deb/pi0-edge-onnxruntime/copyright >"$package/licenses/onnxruntime"
scripts/jetson/third_party_notices.py "$triple" "$package/licenses/third-party-notices.gz"

mkdir -p "$wheels"
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)} PIP_DISABLE_PIP_VERSION_CHECK=1
cp -r python/lerobot_policy_pi0_edge "$work"
# The plugin is for lerobot's Python, which need not be this one.
PI0_EDGE_WHEEL=manylinux_${glibc_floor/./_}_$onnxruntime_arch python3 -m pip wheel --quiet --no-deps --ignore-requires-python \
    --wheel-dir "$wheels" "$work/pi0_edge" "$work/lerobot_policy_pi0_edge"
ls -l "$wheels" >&2
