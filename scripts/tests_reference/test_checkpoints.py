"""Checkpoints that are not as make_checkpoint.py writes them, but as people have them: lerobot runs them, the bundle must agree."""

import json

import pytest
import reference_script
import torch
from conftest import ROOT, run
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
}


@pytest.mark.parametrize("flags, change, told", CHECKPOINTS.values(), ids=CHECKPOINTS.keys())
def test_bundle_agrees_with_the_reference(make_checkpoint, export_python, tmp_path, flags, change, told):
    checkpoint = make_checkpoint("changed", "--size", "tiny", "--seed", "13", *flags.split())
    change(checkpoint)
    told = told.format(checkpoint=checkpoint).split()
    agree(checkpoint, export_python, tmp_path, told)


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

