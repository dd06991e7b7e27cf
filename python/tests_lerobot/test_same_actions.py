"""The plugin computes what lerobot's policies compute, and refuses what it cannot."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import ROOT
from lerobot.configs import RTCAttentionSchedule
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.policies.rtc.configuration_rtc import RTCConfig
from lerobot.policies.utils import prepare_observation_for_inference
from lerobot_policy_pi0_edge import Pi0EdgeConfig
from lerobot_policy_pi0_edge.modeling_pi0_edge import Pi0EdgePolicy
from pi0_edge import Pi0Error

EXACT = 1e-5
STEPS = 55
TASKS = ("pick up the cube", "Open the left drawer, slowly.")


def observation(pair, step: int) -> dict:
    """A robot's observation, other pixels and state each step, as lerobot hands it on."""
    random = np.random.default_rng([7, step])
    raw = {key: random.integers(0, 256, (60, 80, 3), np.uint8) for key in pair.reference.cameras}
    raw["observation.state"] = random.normal(size=pair.reference.state_dim).astype(np.float32)
    return raw


def batches(pair, step: int, preprocessor) -> tuple[dict, dict]:
    """The observation after lerobot's processors, and after the bundle's."""
    prepared = [prepare_observation_for_inference(observation(pair, step), torch.device("cpu"), TASKS[step % 2]) for _ in range(2)]
    return pair.reference.preprocessor(prepared[0]), preprocessor(prepared[1])


@pytest.fixture
def processors(pair):
    return make_pre_post_processors(pair.policy.config, pretrained_path=str(pair.bundle))


def test_lerobot_finds_the_policy(pair):
    assert get_policy_class("pi0_edge") is Pi0EdgePolicy
    assert pair.policy.config.type == "pi0_edge" and pair.policy.config.chunk_size == 10
    assert list(pair.policy.config.image_features) == pair.reference.cameras
    assert pair.policy.config.action_feature == pair.reference.config.action_feature


def test_select_action_with_the_same_torch_seed(pair, processors):
    """One action a step, chunks of three actions, so that queues and noise are drawn alike over an episode and a reset."""
    before, after = processors
    reference, policy = pair.reference.policy, pair.policy
    reference.config.n_action_steps = policy.config.n_action_steps = 3
    worst = 0.0
    for policies in (reference, policy):
        policies.reset()
    generators = [torch.Generator().manual_seed(11).get_state() for _ in range(2)]
    for step in range(STEPS):
        if step == 40:  # the next episode: three quarters through a chunk
            reference.reset()
            policy.reset()
        theirs, ours = batches(pair, step, before)
        torch.set_rng_state(generators[0])
        expected = pair.reference.postprocessor(reference.select_action(theirs))
        generators[0] = torch.get_rng_state()
        torch.set_rng_state(generators[1])
        got = after(policy.select_action(ours))
        generators[1] = torch.get_rng_state()
        assert got.shape == expected.shape == (1, 7) and got.dtype == torch.float32
        worst = max(worst, float((got - expected).abs().max()))
    print(f"\n{policy.engine.info.kind}: largest difference over {STEPS} steps: {worst:.1e}")
    assert worst < EXACT
    policy.config.n_action_steps = 10


@pytest.mark.parametrize("schedule", list(RTCAttentionSchedule))
def test_guided_chunks(pair, processors, schedule):
    """Chunk after chunk, each guided by the rest of the one before, as lerobot's RTC engine asks for them."""
    before, _ = processors
    policies = [pair.reference.policy, pair.policy]
    for policy in policies:
        policy.config.rtc_config = RTCConfig(prefix_attention_schedule=schedule, execution_horizon=6)
    pair.reference.policy.init_rtc_processor()
    left: list[torch.Tensor | None] = [None, None]
    worst, moved = 0.0, 0.0
    try:
        for chunk in range(14):
            inputs = batches(pair, chunk, before)
            chunks = []
            for policy, batch, previous in zip(policies, inputs, left, strict=True):
                torch.manual_seed(chunk)
                chunks.append(policy.predict_action_chunk(batch, inference_delay=chunk % 4, prev_chunk_left_over=previous).clone())
            expected = pair.reference.postprocessor(chunks[0].clone())
            worst = max(worst, float((chunks[1] - expected).abs().max()))
            left = [chunks[0][0, 4:], chunks[1][0, 4:]]
            torch.manual_seed(chunk)
            free = policies[1].predict_action_chunk(inputs[1])
            moved = max(moved, float((chunks[1] - free).abs().max()))
    finally:
        for policy in policies:
            policy.config.rtc_config = None
        pair.reference.policy.init_rtc_processor()
    print(f"\n{schedule.name}: largest difference over 14 chunks (140 actions): {worst:.1e}")
    assert worst < EXACT and moved > 0.01


def test_zero_rows_at_the_end_of_what_is_left_are_dropped(pair, processors):
    _, batch = batches(pair, 0, processors[0])
    pair.policy.config.rtc_config = RTCConfig(execution_horizon=8)
    try:
        torch.manual_seed(1)
        left = pair.policy.predict_action_chunk(batch)[0, 7:]
        padded = torch.cat([left, torch.zeros(5, 7)])
        chunks = []
        for previous in (left, padded, padded[None], torch.zeros(8, 7), None):
            torch.manual_seed(2)
            chunks.append(pair.policy.predict_action_chunk(batch, inference_delay=1, prev_chunk_left_over=previous))
        assert torch.equal(chunks[0], chunks[1]) and torch.equal(chunks[0], chunks[2])
        assert torch.equal(chunks[3], chunks[4]) and not torch.equal(chunks[0], chunks[4])
        with pytest.raises(RuntimeError, match="predict_action_chunk"):
            pair.policy.select_action(batch)
    finally:
        pair.policy.config.rtc_config = None


def test_the_noise_and_the_steps_that_are_given(pair, processors):
    _, batch = batches(pair, 0, processors[0])
    torch.manual_seed(5)
    noise = torch.normal(0.0, 1.0, (1, 10, 32))
    given = pair.policy.predict_action_chunk(batch, noise=noise, num_steps=10)
    torch.manual_seed(5)
    assert torch.equal(given, pair.policy.predict_action_chunk(batch))
    assert not torch.equal(given, pair.policy.predict_action_chunk(batch, noise=noise, num_steps=4))


def changed(batch, key, change):
    return {**batch, key: change(batch[key])}


IMAGE = "observation.images.base"


@pytest.mark.parametrize("change, error, words", [
    (lambda b: changed(b, "observation.state", lambda s: s.repeat(2, 1)), ValueError, "one observation at a time"),
    (lambda b: changed(b, "observation.state", lambda s: s[0]), ValueError, "one observation at a time"),
    (lambda b: changed(b, "observation.state", lambda s: s * torch.nan), Pi0Error, "NON_FINITE"),
    (lambda b: changed(b, "task", lambda t: ["a", "b"]), ValueError, "task: 2 texts"),
    (lambda b: changed(b, IMAGE, lambda i: i.repeat(2, 1, 1, 1)), ValueError, "height, width"),
    (lambda b: changed(b, IMAGE, lambda i: i[:, :2]), ValueError, "height, width"),
    (lambda b: changed(b, IMAGE, lambda i: i * 255), ValueError, "values from"),
    (lambda b: changed(b, IMAGE, lambda i: i - 0.5), ValueError, "values from"),
    (lambda b: changed(b, IMAGE, lambda i: torch.where(i > 0.5, torch.nan, i)), ValueError, "nan"),
    (lambda b: changed(b, IMAGE, lambda i: i.to(torch.int64)), ValueError, "int64"),
    (lambda b: {key: value for key, value in b.items() if key != IMAGE}, Pi0Error, IMAGE),
])
def test_what_does_not_fit_is_refused_in_words(pair, processors, change, error, words):
    _, batch = batches(pair, 0, processors[0])
    with pytest.raises(error, match=words):
        pair.policy.predict_action_chunk(change(batch))


def test_images_as_bytes_and_channels_last(pair, processors):
    _, batch = batches(pair, 0, processors[0])
    torch.manual_seed(0)
    wanted = pair.policy.predict_action_chunk(batch)
    as_bytes = {key: (value * 255).round().to(torch.uint8) if "image" in key else value for key, value in batch.items()}
    last = {key: value.permute(0, 2, 3, 1) if "image" in key else value for key, value in as_bytes.items()}
    for other in (as_bytes, last):
        torch.manual_seed(0)
        assert torch.equal(pair.policy.predict_action_chunk(other), wanted)


def test_training_and_saving_are_refused(pair, tmp_path):
    with pytest.raises(NotImplementedError, match="for inference"):
        pair.policy.forward({})
    with pytest.raises(NotImplementedError, match="copy the bundle"):
        pair.policy.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="needs a bundle"):
        Pi0EdgePolicy(pair.config())
    with pytest.raises(ValueError, match="chunk_size: 50, but"):
        Pi0EdgePolicy.from_pretrained(pair.bundle, config=pair.config(chunk_size=50))
    with pytest.raises(ValueError, match="n_action_steps: 11; 1 to"):
        Pi0EdgeConfig(chunk_size=10, n_action_steps=11)


def test_settings_of_the_command_line(pair):
    config = pair.config(provider="tensorrt", num_inference_steps=4)
    assert (config.provider, config.num_inference_steps) == ("tensorrt", 4)
    with pytest.raises(Pi0Error, match="ERR_"):
        Pi0EdgePolicy.from_pretrained(pair.bundle, config=config)


def test_the_files_in_the_bundle_are_what_the_plugin_would_make(pair, tmp_path):
    from lerobot_policy_pi0_edge.processor_pi0_edge import make_pi0_edge_pre_post_processors

    for made, name in zip(make_pi0_edge_pre_post_processors(pair.policy.config), ("policy_preprocessor", "policy_postprocessor"), strict=True):
        made.save_pretrained(tmp_path, config_filename=f"{name}.json")
        written = json.loads((ROOT / f"models/pi0-tiny/{name}.json").read_text())
        assert json.loads((tmp_path / f"{name}.json").read_text())["steps"] == written["steps"]
