#!/usr/bin/env bash
# Makes models/pi0-sort anew: demonstrations from the simulation, a PI0 trained on them by lerobot, golden data, the
# exported bundle, and its success in closed loop.
#
# Needs the reference environment (scripts/reference_env.sh, 2 GB) and about 20 minutes of one idle core; stopped, it goes
# on from where it was. The same machine gives the same weights.
#
# usage: scripts/sort/make.sh [--seed N] [--frames N] [--steps N] [--threads N] [--work DIR] [BUNDLE]
#   BUNDLE   default: models/pi0-sort; replaced
#   --work   what is between demonstrations and bundle (800 MB), default: target/sort-SEED
set -euo pipefail
cd "$(dirname "$0")/../.."

seed=0 frames=40000 steps=3140 threads=$(nproc) work='' bundle=models/pi0-sort
while [[ $# -gt 0 ]]; do
    case $1 in
    --seed | --frames | --steps | --threads | --work) declare "${1#--}=$2"; shift ;;
    -h | --help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit ;;
    -*) echo "make.sh: unknown argument '$1' (see --help)" >&2; exit 2 ;;
    *) bundle=$1 ;;
    esac
    shift
done
work=${work:-target/sort-$seed}

scripts/python_env.sh
scripts/reference_env.sh
sort=(cargo run --quiet --release --example sort --)
mkdir -p "$work"

if [[ ! -f $work/demonstrations/prompts.json ]]; then
    "${sort[@]}" --demonstrations "$work/demonstrations.part" --frames "$frames" --seed "$seed"
    mv "$work/demonstrations.part" "$work/demonstrations"
fi

checkpoint=$work/pi0-sort
if [[ ! -d $checkpoint ]]; then
    .venv/bin/python scripts/make_checkpoint.py "$checkpoint" --policy pi0 --seed "$seed" \
        --cameras base,wrist --frame-size 56 --image-size 56 --patch-size 28 --vision-width 64 --vision-mlp 128 --vision-layers 2 \
        --state-dim 5 --max-state-dim 5 --action-dim 4 --max-action-dim 4 --joints x,y,z,suction \
        --relative --exclude-joints suction --chunk-size 20 --max-tokens 12 --words put,the,a,red,blue,block,in,left,right,bin \
        --vocab 368 --embed-name embed_tokens --layers 3 --heads 8 --head-dim 8 \
        --prefix-width 64 --prefix-mlp 128 --expert-width 64 --expert-mlp 128
fi
if [[ ! -f $checkpoint/training.json ]]; then
    .reference/bin/python scripts/sort/train.py "$work/demonstrations" "$checkpoint" --seed "$seed" --steps "$steps" --threads "$threads"
fi

rm -rf "$work/observations"
.venv/bin/python scripts/sort/observations.py "$work/demonstrations" "$work/observations" 2
observations=()
for directory in "$work"/observations/*; do observations+=(--observation "$directory"); done
# One thread: how a sum is split over threads shows in its last bit.
.reference/bin/python scripts/reference.py "$checkpoint" --threads 1 --stride 7 --num-steps 10 --num-steps 4 "${observations[@]}"
.venv/bin/python scripts/export.py "$checkpoint" "$bundle" --force
cp "$checkpoint/training.json" "$bundle"
cargo run --quiet --release -p pi0-edge-cli -- check "$bundle"
"${sort[@]}" --bundle "$bundle" --episodes 200 --seed 1000
