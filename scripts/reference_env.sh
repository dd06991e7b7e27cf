#!/usr/bin/env bash
# Makes .reference: the virtual environment in which lerobot itself runs on the CPU.
#
# Only scripts/reference.py, its tests and benches/side_by_side.py need it. Everything
# else works from the golden data that reference.py wrote.
#
# usage: scripts/reference_env.sh [--force] [--gpu]
#   --gpu                  with the CUDA libraries, to run lerobot on a GPU (3 GB more)
#   PI0_REFERENCE_PYTHON   a Python 3.12 interpreter, if none is found
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
env_dir="$root/.reference"
lists="$here/reference"
stamp="$env_dir/.pi0-edge-stamp"

say() { printf 'reference_env: %s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }

force=false
gpu=false
for argument in "$@"; do
  case "$argument" in
    --force) force=true ;;
    --gpu) gpu=true ;;
    -h | --help) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) say "unknown argument '$argument' (see --help)"; exit 2 ;;
  esac
done

files=("$lists/requirements.txt" "$lists/requirements-nodeps.txt")
if $gpu; then files+=("$lists/requirements-gpu.txt"); else files+=("$lists/cuda_stubs.py"); fi
wanted=$(cat "${files[@]}" | sha256sum | cut -d' ' -f1)
if ! $force && [[ -x "$env_dir/bin/python" && -f "$stamp" && "$(cat "$stamp")" == "$wanted" ]]; then
  say "$env_dir is up to date"
  exit 0
fi

[[ "$(uname -s)/$(uname -m)" == Linux/x86_64 ]] \
  || fail "the pinned reference environment is made for Linux on x86-64, not $(uname -s) on $(uname -m)"
for tool in gcc readelf; do
  command -v "$tool" >/dev/null || fail "'$tool' is needed to build the CUDA library stubs: install gcc and binutils"
done
# lerobot 0.6 uses syntax that Python 3.11 cannot parse; 3.13 is left out because the
# pinned list has been run on 3.12 only.
python=$("$here/python312.sh")

# The stamp goes first: a run that is cut short must not look complete.
rm -f "$stamp"
if $force; then rm -rf "$env_dir"; fi
if ! PI0_REFERENCE_PYTHON="$env_dir/bin/python" "$here/python312.sh" >/dev/null 2>&1; then
  rm -rf "$env_dir"
  "$python" -m venv "$env_dir" || fail "could not make $env_dir with $python"
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
pip() { "$env_dir/bin/python" -m pip "$@"; }
say "installing the pinned packages (about 0.7 GB to download, 1.8 GB on disk)"
# Two lists: the metadata of torch, torchvision, lerobot and transformers asks for the
# CUDA wheels (2 GB more) and for robot and training packages that inference never imports.
pip install --quiet --requirement "$lists/requirements.txt"
pip install --quiet --no-deps --requirement "$lists/requirements-nodeps.txt"

if $gpu; then
  pip install --quiet --no-deps --requirement "$lists/requirements-gpu.txt"
else
  say "building stubs for the CUDA libraries that this build of torch links to"
  site=$("$env_dir/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  "$env_dir/bin/python" "$lists/cuda_stubs.py" "$site" >&2
fi

say "checking that lerobot's PI0 policy can be imported"
HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 "$env_dir/bin/python" -c '
import sys
import torch
from lerobot.policies.pi0.modeling_pi0 import PI0Policy
assert torch.cuda.is_available() or "--gpu" not in sys.argv, "torch finds no GPU"
' "$@"
printf '%s\n' "$wanted" >"$stamp"
say "done: $env_dir ($(du -sh "$env_dir" | cut -f1))"
