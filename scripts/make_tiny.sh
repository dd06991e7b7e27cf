#!/usr/bin/env bash
# Makes the bundles in models anew, and the chunks in tests/trained_rtc: seeded weights, golden data from lerobot,
# exported bundle.
#
# Needs the reference environment (scripts/reference_env.sh, 2 GB), which is why the bundles
# are kept in git. The same machine gives the same bytes; another CPU may round golden values
# differently in the last bit.
#
# usage: scripts/make_tiny.sh [DIRECTORY]    default: models; those of the same names are replaced
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:-models}

scripts/python_env.sh
scripts/reference_env.sh

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# bundle NAME FLAGS...: what follows -- goes to reference.py, what follows another -- to it and to export.py.
bundle() {
    local name=$1 list=checkpoint checkpoint=() reference=() told=()
    shift
    for flag; do
        case $flag in
        --) [ $list = checkpoint ] && list=reference || list=told ;;
        *) eval "$list+=(\"\$flag\")" ;;
        esac
    done
    .venv/bin/python scripts/make_checkpoint.py "$work/$name" --size tiny --seed 0 "${checkpoint[@]}"
    # One thread: how a sum is split over threads shows in its last bit.
    .reference/bin/python scripts/reference.py "$work/$name" --seed 0 --threads 1 "${reference[@]}" "${told[@]}"
    .venv/bin/python scripts/export.py "$work/$name" "$target/$name" --force --quiet "${told[@]}"
    du -sh "$target/$name" >&2
}

# For what the two above do not show: as small as they may be, and one recorded case.
small=(--layers 2 --prefix-width 32 --prefix-mlp 64 --expert-width 16 --expert-mlp 48 --head-dim 8
    --vision-layers 1 --vision-width 32 --vision-mlp 48 --image-size 28)
case=(--cases two_cameras_4_steps)

bundle pi0-tiny --policy pi0
bundle pi05-tiny --policy pi05
bundle pi0-openpi --policy pi0 --format openpi --state-dim 7 "${small[@]}" -- "${case[@]}" -- --delta-actions 6,-1
# The same checkpoint in 8 bits, two products of it kept more exact. Its golden data are the other's.
.venv/bin/python scripts/export.py "$work/pi0-openpi" "$target/pi0-openpi-int8" --force --quiet --delta-actions 6,-1 \
    --precision int8 --keep prefix_prefill.layer.0.mlp.down,denoise_step.layer.1.attention.output
bundle pi05-openpi --policy pi05 --format openpi "${small[@]}" -- "${case[@]}" -- --delta-actions none --state-in-prompt
bundle pi05-trained-rtc --policy pi05 --rtc-max-delay 4 "${small[@]}" -- "${case[@]}" --rtc "$target/pi05-trained-rtc.rtc"
# What a previous chunk makes of it is no part of a bundle, but of the runtime's own tests.
rm -rf tests/trained_rtc
mv "$target/pi05-trained-rtc.rtc" tests/trained_rtc
rm tests/trained_rtc/*.png tests/trained_rtc/*_v_t.npy tests/trained_rtc/*_normalized.npy

# What `pi0-edge synthesize --size small` fills in.
.venv/bin/python scripts/make_templates.py crates/pi0-edge-cli/templates --size small --precision fp32
