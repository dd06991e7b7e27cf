#!/usr/bin/env bash
# Every test, from a fresh clone: formatting, lints, documentation, the runtime's tests and the exporter's.
# Needs Rust, Python 3 with venv and pip, and the package registries.
set -euo pipefail
cd "$(dirname "$0")/.."
export ORT_DISABLE_TELEMETRY=1

step() { printf '\n== %s\n' "$*" >&2; }
# In up to four processes, for each of these tests keeps one core busy: the environment of Python, then the folder of tests.
python_tests() { "$1/bin/python" -m pytest -q -n auto --maxprocesses 4 --dist worksteal "$2"; }

step "set-up"
scripts/fetch_onnxruntime.sh
for version in 1.20.0 1.23.2 1.32.0; do
    scripts/fetch_onnxruntime.sh --version "$version"
done
if [ "$(uname -m)" = x86_64 ]; then
    scripts/fetch_onnxruntime.sh --gpu
fi
scripts/python_env.sh --test
scripts/c_tools.sh

step "formatting"
cargo fmt --all --check

step "lints"
cargo clippy --quiet --all-targets -- -D warnings

step "dependencies"
.venv/bin/python scripts/check_dependencies.py

step "C header"
scripts/header.sh --check

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps

step "runtime tests"
cargo test --quiet

step "real-time checks"
scripts/realtime_checks.sh rtsan loom

step "exporter tests"
python_tests .venv scripts/tests

step "Python package"
# The tests of the C interface had the library built.
.venv/bin/python -m pytest -q python/tests

step "openpi's client, readers of recordings"
scripts/clients_env.sh
.clients/bin/python -m pytest -q scripts/tests_clients

step "graphs, compiled by TensorRT"
if scripts/python312.sh >/dev/null 2>&1; then
    scripts/tensorrt_env.sh
    python_tests .tensorrt scripts/tests_tensorrt
else
    echo "SKIPPED: the graphs were NOT compiled: TensorRT for RTX needs Python 3.12" >&2
fi

step "packaging and flashing"
python_tests .venv scripts/tests_jetson

if [ "$(uname -m)" = x86_64 ]; then
    step "aarch64, emulated"
    scripts/jetson.sh setup
    scripts/jetson.sh build
    # The tests of the C interface had the libraries built there.
    scripts/jetson.sh test --native target/debug
fi
