#!/usr/bin/env bash
# Makes the exporter's Python environment, .venv, from the pinned requirements; with --test, its tests' too.
# Runs in milliseconds when nothing changed.
set -euo pipefail
cd "$(dirname "$0")/.."
files=(scripts/requirements.txt)
[ "${1:-}" = --test ] && files+=(scripts/requirements-test.txt)
stamp_of() { cat "$@" | sha256sum | cut -d' ' -f1; }
# One line for each set of requirements that is installed: the tests' includes the exporter's.
grep -qsx "$(stamp_of "${files[@]}")" .venv/stamp && exit 0
echo "installing the Python environment .venv" >&2
python3 -m venv .venv
args=()
for f in "${files[@]}"; do args+=(-r "$f"); done
.venv/bin/python -m pip install --quiet --disable-pip-version-check "${args[@]}"
{ stamp_of "${files[0]}" && stamp_of "${files[@]}"; } >.venv/stamp
