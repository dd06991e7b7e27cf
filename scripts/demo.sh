#!/usr/bin/env bash
# The main job on a fresh machine: fetches ONNX Runtime, builds, checks the small bundle against the reference
# policy's recorded outputs, lets a trained policy sort blocks from a moving belt, computes one action chunk from a recorded
# observation, and measures latency.
#
#   scripts/demo.sh [BUNDLE]                BUNDLE defaults to models/pi0-tiny
#
# Needs Rust, Python 3 with pip, and the package registries. Runs in seconds the second time.
set -euo pipefail
cd "$(dirname "$0")/.."
bundle=${1:-models/pi0-tiny}

say() { printf '\n\033[1m%s\033[0m\n' "$*" >&2; }

scripts/fetch_onnxruntime.sh
say "building: minutes the first time, seconds when nothing changed   cargo build --release"
cargo build --release
cargo build --release --example sort
pi0_edge=target/release/pi0-edge

say "does the bundle compute what the reference policy computes?   pi0-edge check $bundle"
"$pi0_edge" check "$bundle"

say "does a policy that was trained do its task, 100 ms late?   target/release/examples/sort --delay 100 --picture target/sort.gif"
target/release/examples/sort --seed 1 --episodes 50 --delay 100 --picture target/sort.gif

observation=$(echo "$bundle"/golden/*/observation.json | cut -d' ' -f1)
say "one observation, one action chunk   pi0-edge run $bundle --observation $(dirname "$observation")"
"$pi0_edge" run "$bundle" --observation "$(dirname "$observation")"

say "where the time goes   pi0-edge bench $bundle"
"$pi0_edge" bench "$bundle"
