"""Our loading of a checkpoint against lerobot's own."""

import json
import shutil

import pytest
import torch
from lerobot.configs import PreTrainedConfig
from reference import dimensions, observations
from reference.dimensions import CheckpointError
from reference.loading import POLICIES, Reference, load_policy
from reference.recording import batch_of
from safetensors.torch import load_file, save_file

STORED = [(), ("--dtype", "bf16"), ("--no-model-prefix",), ("--embed-name", "both"), ("--no-model-prefix", "--old-mlp-names")]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("flags", STORED, ids=" ".join)
def test_same_policy_as_from_pretrained(make_checkpoint, flags, policy, capsys):
    directory = make_checkpoint("stored", "--size", "tiny", "--policy", policy, *flags)
    ours = Reference(directory)
    with dimensions.following(ours.dimensions, policy):
        config = PreTrainedConfig.from_pretrained(directory)
        config.device = "cpu"
        theirs = POLICIES[policy].from_pretrained(directory, config=config)
    assert "All keys loaded successfully!" in capsys.readouterr().out
    got, want = ours.policy.state_dict(), theirs.state_dict()
    assert got.keys() == want.keys()
    for key in want:
        assert got[key].dtype == want[key].dtype == torch.float32
        assert torch.equal(got[key], want[key]), key
    for (key, got), (_, want) in zip(ours.policy.named_buffers(), theirs.named_buffers(), strict=True):
        assert torch.equal(got, want), key


def test_bfloat16_policies_keep_their_rounded_frequencies(make_checkpoint):
    """dtype "bfloat16" runs in float32 here, but at the frequencies that lerobot's policy has."""
    directory = make_checkpoint("bf16", "--size", "tiny", "--dtype", "mixed", "--policy-dtype", "bfloat16")
    ours = Reference(directory)
    with dimensions.following(ours.dimensions):
        config = PreTrainedConfig.from_pretrained(directory)
        config.device = "cpu"
        theirs = POLICIES["pi0"].from_pretrained(directory, config=config)
    for part in ("paligemma.model.language_model", "gemma_expert.model"):
        got = ours.policy.model.paligemma_with_expert.get_submodule(part).rotary_emb.inv_freq
        want = theirs.model.paligemma_with_expert.get_submodule(part).rotary_emb.inv_freq
        assert want.dtype == torch.bfloat16
        assert torch.equal(got, want.float())


def test_float32_at_rounded_frequencies_comes_closest_to_bfloat16(make_checkpoint):
    """What a bundle computes for a bfloat16 policy, against lerobot really computing in bfloat16."""
    flags = ["--size", "small", "--dtype", "mixed", "--policy-dtype", "bfloat16", "--head-dim", "128"]
    directory = make_checkpoint("bf16", *flags)
    reference = Reference(directory)
    case = observations.made_up(reference, seed=0)[0]
    batch, noise = batch_of(reference, case), torch.from_numpy(case.noise)[None]

    def chunk(policy):
        with torch.no_grad():
            return policy.predict_action_chunk(dict(batch), noise=noise, num_steps=case.num_steps)

    def loaded(trained, dtype):
        config = PreTrainedConfig.from_pretrained(directory)
        config.dtype = trained
        return load_policy(directory, config, dtype=dtype)[0]

    want = chunk(loaded("bfloat16", "bfloat16"))
    rounded, exact = ((chunk(loaded(trained, "float32")) - want).norm() / want.norm() for trained in ("bfloat16", "float32"))
    assert rounded < exact < 1e-2
    assert torch.equal(chunk(reference.policy), chunk(loaded("bfloat16", "float32")))


@pytest.mark.parametrize(
    "key, message",
    [
        ("model.state_proj.bias", "state_proj.bias"),
        ("model.paligemma_with_expert.paligemma.lm_head.weight", "no vocabulary matrix"),
        ("model.paligemma_with_expert.paligemma.model.multi_modal_projector.linear.weight", "projector"),
    ],
)
def test_a_missing_tensor_is_named(tiny, tmp_path, key, message):
    directory = copied(tiny, tmp_path)
    tensors = load_file(directory / "model.safetensors")
    del tensors[key]
    save_file(tensors, directory / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        Reference(directory)


def test_a_tensor_nobody_knows_is_named(tiny, tmp_path):
    directory = copied(tiny, tmp_path)
    tensors = load_file(directory / "model.safetensors")
    save_file(tensors | {"model.new_head.weight": torch.zeros(3)}, directory / "model.safetensors")
    with pytest.raises(CheckpointError, match="model.new_head.weight"):
        Reference(directory)


def test_what_lerobot_cannot_run_is_an_error(tiny, tmp_path):
    directory = copied(tiny, tmp_path)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"image_resolution": [56, 70]}))
    with pytest.raises(CheckpointError, match="not square"):
        Reference(directory)


def copied(source, target):
    return shutil.copytree(source, target / "checkpoint")
