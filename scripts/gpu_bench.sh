#!/usr/bin/env bash
# Measures pi0-edge on this machine's NVIDIA GPU, next to lerobot's PyTorch: parity by stage, latency by stage, CUDA graphs on and
# off, host and device bytes, GPU memory, what holds it back. Writes DIR/report.json and DIR/report.md.
#
#   scripts/gpu_bench.sh                         everything; the most telling steps come first
#   scripts/gpu_bench.sh --dry-run               prints every step and every command of it, and runs none
#   scripts/gpu_bench.sh --minutes 9             stops before a step that would not end within 9 minutes; run it again to go on
#   scripts/gpu_bench.sh --pack DIR --compute 90 on a machine with a network: what another needs that has none, in two small parts
#   scripts/gpu_bench.sh --quick --packed DIR    on the one without, with PyTorch and CUDA's libraries in its python3: all in minutes
#   scripts/gpu_bench.sh --provider cpu --size tiny     the same steps where there is no GPU, in minutes
#
# Needs Python 3.10 or newer, Rust (or --prebuilt DIR), for PyTorch Python 3.12, gcc and binutils; --help has the options.
set -euo pipefail
cd "$(dirname "$0")/.."
export ORT_DISABLE_TELEMETRY=1
exec python3 scripts/gpu_bench/main.py "$@"
