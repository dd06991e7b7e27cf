#!/usr/bin/env bash
# Makes the exporter's Python environment, .venv, from the pinned requirements; with --test, its tests' too.
# Runs in milliseconds when nothing changed.
set -euo pipefail
cd "$(dirname "$0")/.."
files=(scripts/requirements.txt)
tests=(scripts/requirements-dataset.txt scripts/requirements-test.txt)
stamp() { cat "$@" | sha256sum | cut -d' ' -f1; }
found=$(cat .venv/stamp 2>/dev/null || true)
# What the tests need includes the rest.
[ "$found" = "$(stamp "${files[@]}" "${tests[@]}")" ] && exit 0
[ "${1:-}" = --test ] && files+=("${tests[@]}")
[ "$found" = "$(stamp "${files[@]}")" ] && exit 0
echo "installing the Python environment .venv" >&2
python3 -m venv .venv
args=()
for f in "${files[@]}"; do args+=(-r "$f"); done
.venv/bin/python -m pip install --quiet --disable-pip-version-check "${args[@]}"
stamp "${files[@]}" >.venv/stamp
