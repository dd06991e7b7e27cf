#!/usr/bin/env bash
# Runs the aarch64 binary under emulation and compares what it computes with this machine.
#
#   scripts/jetson.sh test [BUNDLE] [--native DIR]
#
#   BUNDLE          models/pi0-tiny when not given
#   --native DIR    where this machine's own build is, target/debug for instance; without it, target/release is built
#
# `check`, then `run` on an observation of the bundle, with an aarch64 ONNX Runtime; every action must be within 1e-5
# of what the native binary computes. Then the same of a C program: examples/c/infer_once.c, built for aarch64 with what
# libpi0-edge-dev has and run with the shared library of pi0-edge. Emulation proves values; it says nothing about speed.
. "$(dirname "$0")/lib.sh"
use_arch arm64
native=
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage && exit ;;
    --native)
        for file in pi0-edge libpi0_edge.so; do
            [ -f "${2:-}/$file" ] || fail "there is no $file in ${2:-the directory, which is missing}"
        done
        native=$(cd "$2" && pwd) && shift
        ;;
    -*) wrong_use "no argument called $1" ;;
    *) [ -d "$1" ] || fail "there is no $1" && bundle=$(cd "$1" && pwd) ;;
    esac
    shift
done
cd "$project"
use_toolchain
[ -n "$dry_run" ] || [ -x "$binary" ] || fail "there is no aarch64 binary: run scripts/jetson.sh build first"
[ -n "$dry_run" ] || [ -x "$cache/qemu-aarch64" ] || fail "setup found no qemu-aarch64: docs/jetson.md, section Setup"
[ -f "$bundle/manifest.json" ] || fail "$bundle has no manifest.json: is it a bundle?"
observation=$(find "$bundle/golden" -name observation.json -printf '%h\n' | sort | head -1)
[ -n "$observation" ] || fail "$bundle has no recorded observation to run on"

run scripts/fetch_onnxruntime.sh
if [ -z "$native" ]; then
    # Not with the compiler of the cross build: two compilers would rebuild each other's target directory.
    run env -u RUSTC cargo build --quiet --release --locked
    native=$project/target/release
fi
emulated=("${emulator[@]}" "$binary")
onnxruntime=$cache/onnxruntime-aarch64/libonnxruntime.so.1
results=$out/test
run mkdir -p "$results"

to() { # FILE COMMAND...: its output goes to FILE
    local file=$1
    shift
    if [ -n "$dry_run" ]; then printf '%s > %s\n' "$(quoted "$@")" "$file"; else run "$@" >"$file"; fi
}
run "${emulated[@]}" check "$bundle" --ort-library "$onnxruntime"
to "$results/aarch64.json" "${emulated[@]}" run "$bundle" --observation "$observation" --seed 1 --format json \
    --ort-library "$onnxruntime"
to "$results/x86_64.json" "$native/pi0-edge" run "$bundle" --observation "$observation" --seed 1 --format json
run scripts/jetson/same_actions.py 1e-5 "$results/aarch64.json" "$results/x86_64.json"

# The C program. Its table has four decimals, so that two that round apart differ by one in the last.
staged=$out/staged
run scripts/install.sh --from "$(dirname "$binary")" --destdir "$staged" --prefix /usr --libdir "lib/$multiarch"
libraries=$staged/usr/lib/$multiarch
run "$cache/python/bin/python" -m ziglang cc -target "aarch64-linux-gnu.$glibc_floor" -std=c99 -O1 examples/c/infer_once.c \
    -I"$staged/usr/include" -L"$libraries" -lpi0_edge -o "$results/infer_once-aarch64"
soname=$(basename "$(readlink "$libraries/libpi0_edge.so")")
run ln -sf "$native/libpi0_edge.so" "$results/$soname"
run "${CC:-cc}" -std=c99 -O1 examples/c/infer_once.c -Icrates/pi0-edge-c/include -L"$native" -lpi0_edge -Wl,-rpath,"$results" \
    -o "$results/infer_once-x86_64"
to "$results/aarch64.txt" "${emulator[@]}" -E LD_LIBRARY_PATH="$libraries" \
    -E ORT_DYLIB_PATH="$onnxruntime" "$results/infer_once-aarch64" "$bundle"
to "$results/x86_64.txt" "$results/infer_once-x86_64" "$bundle"
run scripts/jetson/same_actions.py 1.5e-4 "$results/aarch64.txt" "$results/x86_64.txt"
