#!/usr/bin/env bash
# Fetches ONNX Runtime by package name, checks its sha256, and puts its libraries where pi0-edge looks for them.
#
#   scripts/fetch_onnxruntime.sh [DIR]            for the CPU, to .cache/onnxruntime in the project
#   scripts/fetch_onnxruntime.sh --version V [DIR]    another that the tests use, to .cache/onnxruntime-V: the oldest
#                                                 that pi0-edge takes, 1.20.0; 1.23.2; the newest, 1.32.0
#   scripts/fetch_onnxruntime.sh --gpu [DIR]      with the CUDA 13 and TensorRT 10 providers (x86_64; 256 MB), to
#                                                 .cache/onnxruntime-gpu; name its libonnxruntime.so.1 by --ort-library
#
# Runs in milliseconds when the library is already there. Needs python3 with pip; nothing is installed.
set -euo pipefail

version=1.31.1
package=onnxruntime
cache=onnxruntime
case "${1:-}" in
--gpu)
    package=onnxruntime-gpu
    cache=onnxruntime-gpu
    shift
    ;;
--version)
    version=${2:?a version}
    cache=onnxruntime-$version
    shift 2
    ;;
esac
arch=${PI0_EDGE_ARCH:-$(uname -m)}
platform=manylinux_2_28_$arch
case "$package $version $arch" in
"onnxruntime 1.20.0 x86_64") sha256=041fefe60af844ebd90f344c84f908201490555cd0a6d78dd0a7acdc27b59972 ;;
"onnxruntime 1.20.0 aarch64") sha256=8a831b720d0a7be8241a230cb06f592e8bb66652d7cea54ce02d83769651fdee ;;
"onnxruntime 1.23.2 x86_64") sha256=da44b99206e77734c5819aa2142c69e64f3b46edc3bd314f6a45a932defc0b3e ;;
"onnxruntime 1.23.2 aarch64") sha256=bbfd2fca76c855317568c1b36a885ddea2272c13cb0e395002c402f2360429a6 ;;
"onnxruntime 1.31.1 x86_64") sha256=5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f ;;
"onnxruntime 1.31.1 aarch64") sha256=da05378364c44d4407e463982d2bf8d5e4cfea873283757e48beeb41df97b7f3 ;;
"onnxruntime 1.32.0 x86_64") sha256=5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d ;;
"onnxruntime 1.32.0 aarch64") sha256=2303372a85299b6757b0e11e1cbf13e410ddf7e10c37f4b37e99d1c90e7daf7c ;;
"onnxruntime-gpu 1.31.1 x86_64") sha256=e26c475fe361b2015f45b4b824bd13f0bb20204e59b62814e6f0acd5f3d491a6 ;;
"onnxruntime-gpu "*" aarch64")
    echo "fetch_onnxruntime: the published arm64 build has no code for a Jetson's GPU and no TensorRT; build" \
        "ONNX Runtime on or for the Jetson (docs/jetson.md) and set ORT_DYLIB_PATH to it" >&2
    exit 1
    ;;
*)
    echo "fetch_onnxruntime: no known $package $version for $arch; set ORT_DYLIB_PATH to one you built" >&2
    exit 1
    ;;
esac

here=$(cd "$(dirname "$0")/.." && pwd)
target=${1:-$here/.cache/$cache}
stamp="$version $platform"
if [ -f "$target/libonnxruntime.so.1" ] && [ "$(cat "$target/VERSION" 2>/dev/null)" = "$stamp" ]; then
    exit 0
fi

echo "fetching $package $version for $platform" >&2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The wheel is a zip archive with the libraries inside; the Python version named here only picks the file.
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --implementation cp --python-version 3.11 --abi cp311 --platform "$platform" \
    --dest "$work" "$package==$version"
wheel=$(echo "$work"/*.whl)
echo "$sha256  $wheel" | sha256sum --check --status || {
    echo "fetch_onnxruntime: $(basename "$wheel") has sha256 $(sha256sum <"$wheel" | cut -d' ' -f1)," \
        "expected $sha256; not using it" >&2
    exit 1
}
mkdir -p "$target"
# Into the target's own file system, so that the library can be moved into place at once.
python3 - "$wheel" "$target" "$package" <<'PYTHON'
import os, shutil, sys, zipfile
wheel, target, package = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    libraries = [n for n in archive.namelist() if n.startswith("onnxruntime/capi/libonnxruntime") and ".so" in n]
    if package == "onnxruntime":  # the CPU's provider is part of the library itself
        libraries = [n for n in libraries if "_providers_" not in n]
    # ONNX Runtime's own last: where it is, its providers are.
    for member in sorted(libraries, key=lambda n: ".so." in n):
        name = os.path.basename(member)
        name = "libonnxruntime.so.1" if ".so." in name else name
        part = os.path.join(target, f".{name}.part")
        with archive.open(member) as source, open(part, "wb") as out:
            shutil.copyfileobj(source, out)
        os.chmod(part, 0o755)
        os.replace(part, os.path.join(target, name))
PYTHON
echo "$stamp" >"$target/VERSION"
