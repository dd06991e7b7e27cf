"""The exporter on checkpoints it has never seen: lerobot runs them, the bundle must agree."""

import os
import pathlib

import pytest
import reference_script
from conftest import ROOT, run
from replay import Bundle

LIMIT = 1e-5

# Flags of make_checkpoint.py, on top of --size tiny. No two dimensions of a set should be
# equal by accident: a swapped pair of axes must not fit.
UNSEEN = {
    "odd widths": "--prefix-width 58 --prefix-mlp 131 --expert-width 34 --expert-mlp 77 --layers 2 --heads 3 --head-dim 10"
    " --vision-width 35 --vision-heads 5 --vision-mlp 61 --vision-layers 3",
    "one head": "--heads 1 --head-dim 24 --vision-heads 1",
    "many heads, wider than the model": "--heads 12 --head-dim 22 --expert-width 18 --layers 1",
    "one camera, one joint": "--cameras 1 --chunk-size 7 --state-dim 1 --action-dim 1",
    "four cameras": "--cameras 4 --chunk-size 7 --image-size 70 --layers 4",
    "small patches": "--image-size 60 --patch-size 6 --cameras 2",
    "patches that leave a rest": "--image-size 61 --patch-size 14 --cameras 2",
    "one action": "--chunk-size 1 --num-steps 3",
    "other padded widths": "--max-state-dim 11 --max-action-dim 9 --state-dim 11 --action-dim 9 --max-tokens 57",
    "nothing padded": "--state-dim 32 --action-dim 32",
    "min-max": "--normalization MIN_MAX",
    "quantiles": "--normalization QUANTILES",
    "10% quantiles": "--normalization QUANTILE10",
    "identity": "--normalization IDENTITY",
    "relative actions": "--relative --state-dim 8 --normalization QUANTILES",
    "relative actions, all joints": "--relative --state-dim 7 --exclude-joints ,",
    "renamed cameras": "--rename observation.images.front=observation.images.base,observation.images.hand=observation.images.wrist",
    "empty cameras": "--empty-cameras 2 --cameras 2",
    "stored as bfloat16": "--dtype bf16",
    "bfloat16 policy": "--dtype mixed --policy-dtype bfloat16 --head-dim 32",
    "as older lerobot saved it": "--old-processors --old-mlp-names --no-model-prefix",
    "other vocabulary name": "--embed-name embed_tokens",
    "both vocabulary names": "--embed-name both",
    "pi05": "--policy pi05",
    "pi05, odd widths": "--policy pi05 --prefix-width 58 --prefix-mlp 131 --expert-width 34 --expert-mlp 77 --layers 2 --heads 3"
    " --head-dim 10 --vision-width 35 --vision-heads 5 --vision-mlp 61 --vision-layers 3",
    "pi05, one action, one joint": "--policy pi05 --chunk-size 1 --cameras 1 --state-dim 1 --action-dim 1",
    "pi05, many joints": "--policy pi05 --state-dim 19 --action-dim 17 --max-state-dim 21 --max-action-dim 23",
    "pi05, mean and deviation": "--policy pi05 --normalization MEAN_STD",
    "pi05, min-max": "--policy pi05 --normalization MIN_MAX",
    "pi05, 10% quantiles": "--policy pi05 --normalization QUANTILE10",
    "pi05, identity": "--policy pi05 --normalization IDENTITY",
    "pi05, relative actions": "--policy pi05 --relative --state-dim 8",
    "pi05, short prompts": "--policy pi05 --max-tokens 73 --cameras 2 --empty-cameras 1",
    "pi05, bfloat16 policy": "--policy pi05 --dtype mixed --policy-dtype bfloat16 --head-dim 32",
    "pi05, as older lerobot saved it": "--policy pi05 --old-processors --old-mlp-names --no-model-prefix",
    "pi05, prompts that only just fit": "--policy pi05 --max-tokens 43 --state-dim 4 --normalization MEAN_STD",
    "pi05, wide state": "--policy pi05 --state-dim 32 --action-dim 32 --layers 1 --max-tokens 181",
    "pi05, trained for real-time chunking": "--policy pi05 --rtc-max-delay 3 --chunk-size 9",
    "openpi": "--format openpi --delta-actions 6,-1 --state-dim 6",
    "openpi, other dimensions": "--format openpi --layers 2 --heads 3 --head-dim 10 --chunk-size 16 --state-dim 5 --action-dim 4"
    " --max-state-dim 11 --max-action-dim 11 --image-size 42",
    "openpi, stored as bfloat16": "--format openpi --dtype bf16 --policy-dtype bfloat16 --head-dim 32 --state-dim 14 --action-dim 14"
    " --delta-actions 6,-1,6,-1",
    "openpi, short prompts": "--format openpi --max-tokens 12",
    "openpi pi05": "--policy pi05 --format openpi --state-dim 8 --delta-actions none",
    "openpi pi05, deltas": "--policy pi05 --format openpi --state-dim 7 --delta-actions 7 --chunk-size 5",
    "openpi pi05, without state": "--policy pi05 --format openpi --no-state-in-prompt --image-size 70",
    "openpi pi05, part of the statistics": "--policy pi05 --format openpi --state-dim 14 --action-dim 14 told --state-dim 9 --action-dim 6",
    "openpi pi05, trained in PyTorch": "--policy pi05 --format openpi --dtype bf16 --policy-dtype bfloat16 --head-dim 32 --rotary bf16",
    "pi05, padded state": "--policy pi05 --old-processors --pad-state-in-prompt",
}


@pytest.mark.parametrize("flags", UNSEEN.values(), ids=UNSEEN.keys())
def test_bundle_agrees_with_lerobot(make_checkpoint, export_python, tmp_path, flags, record_property):
    made, told = divided(flags.split())
    checkpoint = make_checkpoint("unseen", "--size", "tiny", "--seed", "11", *made)
    heads = flags.split("--vision-heads ")[1:]
    told += ["--vision-heads", heads[0].split()[0]] if heads else []
    assert reference_script.main([str(checkpoint), "--seed", "5", *told]) == 0
    run(export_python, ROOT / "scripts" / "export.py", checkpoint, tmp_path / "bundle", "--quiet", *told)

    errors = Bundle(tmp_path / "bundle").worst_errors()
    print(f"worst stage {max(errors.values()):.1e}, worst actions {max(e for k, e in errors.items() if k.endswith(' actions')):.1e}")
    assert {name: error for name, error in errors.items() if error > LIMIT} == {}
    binary = built_binary()
    if binary:
        print(run(binary, "check", tmp_path / "bundle"))


# What no checkpoint records is told to both sides, and how many words there are to it.
TOLD = {"--pad-state-in-prompt": 1, "--no-state-in-prompt": 1, "--delta-actions": 2, "--rotary": 2}


def divided(flags):
    """The flags for make_checkpoint.py, and those for reference.py and export.py; what follows the word told is for them too."""
    made, told = flags, []
    if "told" in made:
        at = made.index("told")
        made, told = made[:at], made[at + 1 :]
    for flag, words in TOLD.items():
        if flag in made:
            at = made.index(flag)
            told, made = told + made[at : at + words], made[:at] + made[at + words :]
    if "openpi" in made and "--max-tokens" in made:
        at = made.index("--max-tokens")
        told = told + made[at : at + 2]
    return made, told


def built_binary():
    if "PI0_EDGE_BIN" in os.environ:
        return pathlib.Path(os.environ["PI0_EDGE_BIN"])
    built = [path for path in (ROOT / "target").glob("*/pi0-edge") if path.is_file()]
    return max(built, key=lambda path: path.stat().st_mtime, default=None)
