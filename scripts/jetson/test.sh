#!/usr/bin/env bash
# Runs the aarch64 binary under emulation and compares what it computes with this machine.
#
#   scripts/jetson.sh test [BUNDLE]        models/pi0-tiny when not given
#
# `check`, then `run` on an observation of the bundle, with an aarch64 ONNX Runtime; every action must be within 1e-5
# of what the native binary computes. Emulation proves values; it says nothing about speed.
. "$(dirname "$0")/lib.sh"
use_arch arm64
case ${1:-} in
-h | --help) usage && exit ;;
'') ;;
*) bundle=$(cd "$1" && pwd) ;;
esac
cd "$project"
use_toolchain
[ -n "$dry_run" ] || [ -x "$binary" ] || fail "there is no aarch64 binary: run scripts/jetson.sh build first"
[ -n "$dry_run" ] || [ -x "$cache/qemu-aarch64" ] || fail "setup found no qemu-aarch64: docs/jetson.md, section Setup"
[ -f "$bundle/manifest.json" ] || fail "$bundle has no manifest.json: is it a bundle?"
observation=$(find "$bundle/golden" -name observation.json -printf '%h\n' | sort | head -1)
[ -n "$observation" ] || fail "$bundle has no recorded observation to run on"

run scripts/fetch_onnxruntime.sh
# Not with the compiler of the cross build: two compilers would rebuild each other's target directory.
run env -u RUSTC cargo build --quiet --release --locked
native=target/release/pi0-edge
emulated=("$cache/qemu-aarch64" -L "$cache/sysroot/usr/aarch64-linux-gnu" "$binary")
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
to "$results/x86_64.json" "$native" run "$bundle" --observation "$observation" --seed 1 --format json
run scripts/jetson/same_actions.py 1e-5 "$results/aarch64.json" "$results/x86_64.json"
