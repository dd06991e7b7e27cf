#!/usr/bin/env bash
# Makes models/pi0-tiny anew: seeded weights, golden data from lerobot, exported bundle.
#
# Needs the reference environment (scripts/reference_env.sh, 2 GB), which is why the bundle
# is kept in git. The same machine gives the same bytes; another CPU may round golden values
# differently in the last bit.
#
# usage: scripts/make_tiny.sh [DIRECTORY]    default: models/pi0-tiny, replaced
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:-models/pi0-tiny}

scripts/python_env.sh
scripts/reference_env.sh

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
.venv/bin/python scripts/make_checkpoint.py "$work/pi0-tiny" --size tiny --seed 0
# One thread: how a sum is split over threads shows in its last bit.
.reference/bin/python scripts/reference.py "$work/pi0-tiny" --seed 0 --threads 1
.venv/bin/python scripts/export.py "$work/pi0-tiny" "$target" --force --quiet
du -sh "$target" >&2
