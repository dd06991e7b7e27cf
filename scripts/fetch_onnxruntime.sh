#!/usr/bin/env bash
# Fetches ONNX Runtime's CPU library by package name, checks its sha256, and puts it where pi0-edge looks for it.
#
#   scripts/fetch_onnxruntime.sh [DIR]      DIR defaults to .cache/onnxruntime in the project
#
# Runs in milliseconds when the library is already there. Needs python3 with pip; nothing is installed.
set -euo pipefail

version=1.31.1
case "${PI0_EDGE_ARCH:-$(uname -m)}" in
x86_64)
    platform=manylinux_2_28_x86_64
    sha256=5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f
    ;;
aarch64)
    platform=manylinux_2_28_aarch64
    sha256=da05378364c44d4407e463982d2bf8d5e4cfea873283757e48beeb41df97b7f3
    ;;
*)
    echo "fetch_onnxruntime: no known library for $(uname -m); set ORT_DYLIB_PATH to one you built" >&2
    exit 1
    ;;
esac

here=$(cd "$(dirname "$0")/.." && pwd)
target=${1:-$here/.cache/onnxruntime}
stamp="$version $platform"
if [ -f "$target/libonnxruntime.so.1" ] && [ "$(cat "$target/VERSION" 2>/dev/null)" = "$stamp" ]; then
    exit 0
fi

echo "fetching ONNX Runtime $version for $platform" >&2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The wheel is a zip archive with the library inside; the Python version named here only picks the file.
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --implementation cp --python-version 3.11 --abi cp311 --platform "$platform" \
    --dest "$work" "onnxruntime==$version"
wheel=$(echo "$work"/onnxruntime-*.whl)
echo "$sha256  $wheel" | sha256sum --check --status || {
    echo "fetch_onnxruntime: $(basename "$wheel") has sha256 $(sha256sum <"$wheel" | cut -d' ' -f1)," \
        "expected $sha256; not using it" >&2
    exit 1
}
mkdir -p "$target"
python3 - "$wheel" "onnxruntime/capi/libonnxruntime.so.$version" "$work/library" <<'PYTHON'
import shutil, sys, zipfile
wheel, member, out = sys.argv[1:]
with zipfile.ZipFile(wheel).open(member) as source, open(out, "wb") as target:
    shutil.copyfileobj(source, target)
PYTHON
chmod 755 "$work/library"
mv "$work/library" "$target/libonnxruntime.so.1"
echo "$stamp" >"$target/VERSION"
