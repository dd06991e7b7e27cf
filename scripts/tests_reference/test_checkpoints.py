"""Checkpoints that are not as make_checkpoint.py writes them, but as people have them: lerobot runs them, the bundle must agree."""

import json

import numpy as np
import pytest
import reference_script
import torch
from conftest import ROOT, run
from PIL import Image
from reference import observations
from reference.loading import Reference
from reference.recording import batch_of
from replay import Bundle
from safetensors.torch import load_file, save_file
from test_unseen import LIMIT

STATISTICS = ("policy_preprocessor_step_*_normalizer_processor.safetensors", "policy_postprocessor_step_*.safetensors")


def edit_json(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def edit_tensors(path, edit):
    save_file({key: edit(key, tensor).contiguous() for key, tensor in load_file(path).items()}, path)


def base_features(checkpoint):
    def widen(config):
        config["input_features"]["observation.state"]["shape"] = [config["max_state_dim"]]
        config["output_features"]["action"]["shape"] = [config["max_action_dim"]]

    edit_json(checkpoint / "config.json", widen)


def one_by_n(checkpoint):
    for pattern in STATISTICS:
        for path in checkpoint.glob(pattern):
            edit_tensors(path, lambda key, tensor: tensor[None] if key.startswith(("observation.state", "action")) else tensor)


def float16(checkpoint):
    edit_tensors(checkpoint / "model.safetensors", lambda key, tensor: tensor.half())


def old_num_steps(checkpoint):
    edit_json(checkpoint / "config.json", lambda config: config.update(num_steps=config.pop("num_inference_steps")))


def narrow_padding(checkpoint):
    """A state wider than what config.json pads to, which is of no matter where the state is text."""
    edit_json(checkpoint / "config.json", lambda config: config.update(max_state_dim=5))


def openpis_configuration(checkpoint):
    keys = {"pi05": True, "max_token_len": 256, "discrete_state_input": False, "dtype": "bfloat16"}
    edit_json(checkpoint / "config.json", lambda config: config.update(keys))


def assets_elsewhere(checkpoint):
    """As openpi's training in PyTorch leaves it."""
    (checkpoint / "config.json").unlink()
    (checkpoint / "assets").rename(checkpoint.parent / "assets")


def padded_statistics(checkpoint):
    def pad(content):
        for feature in content["norm_stats"].values():
            for values in feature.values():
                values.extend([0.0] * (24 - len(values)))

    edit_json(checkpoint / "assets/arm/norm_stats.json", pad)


def unchanged(checkpoint):
    pass


# Flags for make_checkpoint.py, what is done to the result, and what export.py and reference.py are told.
CHECKPOINTS = {
    "a base model's features": ("", base_features, ""),
    "pi05, a base model's features": ("--policy pi05", base_features, ""),
    "statistics one by N": ("", one_by_n, ""),
    "pi05, statistics one by N": ("--policy pi05", one_by_n, ""),
    "float16": ("", float16, ""),
    "num_steps": ("", old_num_steps, ""),
    "pi05, a state wider than the padding": ("--policy pi05 --state-dim 9", narrow_padding, ""),
    "openpi, all of its configuration": ("--policy pi05 --format openpi", openpis_configuration, ""),
    "openpi, assets elsewhere": ("--format openpi", assets_elsewhere, "--action-horizon 10 --norm-stats {checkpoint}/../assets"),
    "openpi, a padded state": ("--format openpi", padded_statistics, "--state-dim 6 --action-dim 7"),
    "openpi pi05, a padded state": ("--policy pi05 --format openpi", padded_statistics, "--state-dim 6 --action-dim 7"),
    "openpi, ALOHA": ("--format openpi --state-dim 14 --action-dim 14", unchanged, "--adapt-to-pi --delta-actions 6,-1,6,-1"),
    "openpi pi05, ALOHA": ("--policy pi05 --format openpi --state-dim 14 --action-dim 14", unchanged, "--adapt-to-pi"),
}

# Flags for make_checkpoint.py whose prompts are cut: in the task, and in the state behind it.
LONG = {
    "a task": "",
    "pi05, a task": "--policy pi05 --max-tokens 60",
    "pi05, many joints": "--policy pi05 --state-dim 30 --max-tokens 110",
    "openpi, a task": "--format openpi",
    "openpi pi05, many joints": "--policy pi05 --format openpi --state-dim 30 --max-state-dim 64 --max-action-dim 64",
}


@pytest.mark.parametrize("flags, change, told", CHECKPOINTS.values(), ids=CHECKPOINTS.keys())
def test_bundle_agrees_with_the_reference(make_checkpoint, export_python, tmp_path, flags, change, told):
    checkpoint = make_checkpoint("changed", "--size", "tiny", "--seed", "13", *flags.split())
    change(checkpoint)
    told = told.format(checkpoint=checkpoint).split()
    agree(checkpoint, export_python, tmp_path, told)


@pytest.mark.parametrize("flags", LONG.values(), ids=LONG.keys())
def test_a_long_prompt_is_cut_where_the_reference_cuts_it(make_checkpoint, export_python, tmp_path, flags):
    checkpoint = make_checkpoint("long", "--size", "tiny", "--seed", "13", *flags.split())
    config = json.loads((checkpoint / "config.json").read_text())
    cameras = [key for key in config.get("input_features", {"base_0_rgb": None}) if "state" not in key]
    (tmp_path / "long").mkdir()
    Image.fromarray(np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)).save(tmp_path / "long/frame.png")
    width = 30 if "30" in flags else 6
    observation = {
        "images": {cameras[0]: "frame.png"},
        "state": np.random.default_rng(3).normal(size=width).tolist(),
        "prompt": "pick up the red cube and put it into the blue box, then close the lid and push the button next to the door",
    }
    (tmp_path / "long/observation.json").write_text(json.dumps(observation))
    told = ["--max-tokens", "160"] if "openpi" in flags and "pi05" in flags else []
    agree(checkpoint, export_python, tmp_path, told, ["--observation", str(tmp_path / "long")])
    golden = json.loads((tmp_path / "bundle/golden/golden.json").read_text())
    limit = json.loads((tmp_path / "bundle/manifest.json").read_text())["prompt"]["max_tokens"]
    assert [len(case["expected"]["tokens"]) for case in golden["cases"]] == [limit]


def agree(checkpoint, export_python, tmp_path, told=(), recorded=()):
    assert reference_script.main([str(checkpoint), "--seed", "5", *told, *recorded]) == 0
    run(export_python, ROOT / "scripts" / "export.py", checkpoint, tmp_path / "bundle", "--quiet", *told)
    errors = Bundle(tmp_path / "bundle").worst_errors()
    print(f"worst {max(errors.values()):.1e}")
    assert {name: error for name, error in errors.items() if error > LIMIT} == {}


def test_a_prompt_cut_by_the_tokenizer_step_is_cut_in_the_reference_too(tiny, tmp_path):
    """lerobot's tokenizer gives the first ids, the beginning of the text among them."""
    reference = Reference(tiny)
    case = observations.made_up(reference, seed=1)[0]
    case.prompt = "pick up the cube and " * 20
    tokens = batch_of(reference, case)["observation.language.tokens"][0]
    whole = reference._tokenizer_step()[1].input_tokenizer(case.prompt + "\n")["input_ids"]
    assert len(whole) > reference.max_tokens == len(tokens)
    assert torch.equal(tokens, torch.tensor(whole[: len(tokens)]))

