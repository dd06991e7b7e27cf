#!/usr/bin/env bash
# Builds the program and the libraries for a Jetson, and fails when they would need a newer glibc than JetPack 5 has.
#
#   scripts/jetson.sh build [--arch arm64|amd64]     arm64 when not given
. "$(dirname "$0")/lib.sh"
use_arch arm64
while [ $# -gt 0 ]; do
    case $1 in
    --arch) use_arch "${2:-}" && shift ;;
    -h | --help) usage && exit ;;
    *) wrong_use "no argument called $1" ;;
    esac
    shift
done
use_toolchain

cross_build
# Man pages and completions, which the program itself writes.
runs=() share=$(dirname "$binary")/share
[ "$(uname -m)" = "$onnxruntime_arch" ] || runs=("${emulator[@]}")
run rm -rf "$share"
if [ -n "$dry_run" ] || [ ${#runs[@]} = 0 ] || [ -x "${runs[0]}" ]; then
    run "${runs[@]}" "$binary" generate "$share"
else
    say "no man pages and completions: setup found no qemu-aarch64 to run $binary with"
fi
run scripts/jetson/needs.sh gate "$glibc_floor" "$binary" "$(dirname "$binary")/libpi0_edge.so"
[ -n "$dry_run" ] || say "$binary: $(du -h "$binary" | cut -f1)," \
    "glibc >= $(scripts/jetson/needs.sh glibc "$binary")"
