#!/usr/bin/env bash
# Makes models/pi0-tiny and models/pi05-tiny anew: seeded weights, golden data from lerobot,
# exported bundle.
#
# Needs the reference environment (scripts/reference_env.sh, 2 GB), which is why the bundles
# are kept in git. The same machine gives the same bytes; another CPU may round golden values
# differently in the last bit.
#
# usage: scripts/make_tiny.sh [DIRECTORY]    default: models; its pi0-tiny and pi05-tiny are replaced
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:-models}

scripts/python_env.sh
scripts/reference_env.sh

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for policy in pi0 pi05; do
    name=$policy-tiny
    .venv/bin/python scripts/make_checkpoint.py "$work/$name" --policy "$policy" --size tiny --seed 0
    # One thread: how a sum is split over threads shows in its last bit.
    .reference/bin/python scripts/reference.py "$work/$name" --seed 0 --threads 1
    .venv/bin/python scripts/export.py "$work/$name" "$target/$name" --force --quiet
    du -sh "$target/$name" >&2
done
