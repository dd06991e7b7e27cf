#!/usr/bin/env bash
# Makes the exporter's Python environment, .venv, from the pinned requirements; with --test, its tests' too.
# Runs in milliseconds when nothing changed.
set -euo pipefail
cd "$(dirname "$0")/.."
files=(scripts/requirements.txt)
[ "${1:-}" = --test ] && files+=(scripts/requirements-test.txt)
stamp=$(cat "${files[@]}" | sha256sum | cut -d' ' -f1)
[ "$(cat .venv/stamp 2>/dev/null)" = "$stamp" ] && exit 0
echo "installing the Python environment .venv" >&2
python3 -m venv .venv
args=()
for f in "${files[@]}"; do args+=(-r "$f"); done
.venv/bin/python -m pip install --quiet --disable-pip-version-check "${args[@]}"
echo "$stamp" >.venv/stamp
