"""Exported graphs against the oracle, stage by stage, over models of any shape."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.bundle import export
from exporter.manifest import Options
from exporter.synthetic.spec import CheckpointSpec, make_spec
from host import Host
from make_checkpoint import make_checkpoint
from oracle import Oracle, guidance

TOLERANCE = 1e-5


def difference(got, want) -> float:
    """The largest error, in units of the largest value wanted."""
    want = np.asarray(want, np.float64)
    assert got.shape == want.shape
    assert np.isfinite(got).all()
    return float(np.abs(got.astype(np.float64) - want).max() / np.abs(want).max())


@st.composite
def specs(draw) -> CheckpointSpec:
    """Models whose dimensions have nothing to do with each other."""
    number = lambda low, high: draw(st.integers(low, high))  # noqa: E731
    heads, patch = number(1, 5), number(2, 6)
    return CheckpointSpec(
        seed=number(0, 1000), policy=draw(st.sampled_from(["pi0", "pi05"])),
        prefix_width=number(8, 40), prefix_mlp=number(8, 64), expert_width=2 * number(4, 20), expert_mlp=number(8, 64),
        layers=number(1, 3), heads=number(1, 5), head_dim=2 * number(1, 9),
        vision_width=heads * number(4, 9) * 2, vision_mlp=number(8, 40), vision_layers=number(1, 2), vision_heads=heads,
        patch_size=patch, image_size=(number(patch, 4 * patch), number(patch, 4 * patch)), vocab=number(489, 520),
        cameras=tuple(f"observation.images.camera_{i}" for i in range(number(1, 4))), empty_cameras=number(0, 2),
        chunk_size=number(1, 12), max_state_dim=number(7, 32), max_action_dim=number(7, 32), state_dim=number(1, 7),
        action_dim=number(1, 7), max_tokens=number(3, 12),
        storage=draw(st.sampled_from(["f32", "bf16", "mixed"])), policy_dtype=draw(st.sampled_from(["float32", "bfloat16"])),
        model_prefix=draw(st.booleans()), embed_name=draw(st.sampled_from(["lm_head", "embed_tokens", "both"])),
        old_mlp_names=draw(st.booleans()), old_processors=draw(st.booleans()),
        normalization=draw(st.sampled_from(["MEAN_STD", "MIN_MAX", "QUANTILES", "QUANTILE10", "IDENTITY"])),
    )


class Case:
    """One checkpoint, its bundle, and an observation with some of its cameras absent."""

    def __init__(self, directory: Path, spec: CheckpointSpec, options: Options = Options()):
        make_checkpoint(directory / "checkpoint", spec)
        export(directory / "checkpoint", directory / "bundle", options)
        self.oracle, self.host = Oracle(directory / "checkpoint", spec.vision_heads), Host(directory / "bundle")
        random = np.random.default_rng(spec.seed)
        self.present = random.random(len(spec.cameras)) < 0.7
        self.present[random.integers(len(spec.cameras))] = True
        self.pixels = random.uniform(-1, 1, (len(spec.cameras), 3, *spec.image_size)).astype(np.float32)
        self.tokens = [2, *random.integers(4, spec.vocab, random.integers(1, spec.max_tokens))]
        self.state = np.zeros(spec.max_state_dim, np.float32)
        self.state[: spec.state_dim] = random.standard_normal(spec.state_dim)
        self.noise = random.standard_normal((spec.chunk_size, spec.max_action_dim)).astype(np.float32)
        self.previous = random.standard_normal(self.noise.shape).astype(np.float32)
        self.weights = np.sort(random.uniform(0, 1, spec.chunk_size).astype(np.float32))[::-1].copy()
        self.max_tokens = spec.max_tokens

    def check_stages(self, steps: tuple[int, ...]) -> None:
        embeds = self.host.images(self.pixels[self.present])
        wanted = np.stack([self.oracle.image_tokens(image) for image in self.pixels[self.present]])
        assert difference(embeds, wanted) <= TOLERANCE
        cache = self.host.prefix(embeds, self.tokens)
        wanted_cache, pad = self.oracle.run_prefix(self.pixels, self.present, self.tokens, self.max_tokens)
        assert pad.sum() == cache["present.0.key"].shape[1]
        for i, (keys, values) in enumerate(wanted_cache):
            assert difference(cache[f"present.{i}.key"][0], keys[pad]) <= TOLERANCE
            assert difference(cache[f"present.{i}.value"][0], values[pad]) <= TOLERANCE
        for count in steps:
            actions, velocities = self.host.denoise(self.noise, self.state, cache, count)
            wanted, wanted_velocities = self.oracle.sample(self.noise, self.state, wanted_cache, pad, count)
            assert difference(velocities, wanted_velocities) <= TOLERANCE
            assert difference(actions, wanted) <= TOLERANCE
        self.cache, self.wanted_cache, self.pad = cache, wanted_cache, pad

    def check_guided(self, steps: int) -> None:
        weights = [guidance(float(np.float32(1 + k * (-1.0 / steps))), 10.0) for k in range(steps)]
        actions, _ = self.host.denoise(self.noise, self.state, self.cache, steps, self.previous, self.weights, weights)
        wanted, _ = self.oracle.sample(self.noise, self.state, self.wanted_cache, self.pad, steps, self.previous, self.weights)
        assert difference(actions, wanted) <= TOLERANCE
        assert difference(actions, self.host.denoise(self.noise, self.state, self.cache, steps)[0]) > 1e-3


    def check_joined(self, steps: int, delay: int) -> None:
        """With the first rows taken over from a previous chunk, as a policy trained for real-time chunking does it."""
        actions, _ = self.host.denoise(self.noise, self.state, self.cache, steps, self.previous, clean=delay)
        wanted, _ = self.oracle.sample(self.noise, self.state, self.wanted_cache, self.pad, steps, self.previous, clean=delay)
        assert difference(actions, wanted) <= TOLERANCE
        assert np.array_equal(actions[:delay], self.previous[:delay])
        assert difference(actions[delay:], self.host.denoise(self.noise, self.state, self.cache, steps)[0][delay:]) > 1e-3


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(spec=specs(), steps=st.integers(1, 12))
def test_any_shape(spec, steps):
    options = Options(vision_heads=spec.vision_heads)
    with tempfile.TemporaryDirectory() as directory:
        Case(Path(directory), spec, options).check_stages((steps,))


@pytest.mark.parametrize("size, changes", [
    ("tiny", {}),
    ("tiny", {"storage": "bf16", "model_prefix": False, "embed_name": "both"}),
    ("tiny", {"storage": "mixed", "policy_dtype": "bfloat16"}),
    ("tiny", {"image_size": (61, 61), "layers": 4, "heads": 5, "chunk_size": 50}),
    ("tiny", {"policy": "pi05"}),
    ("tiny", {"policy": "pi05", "storage": "mixed", "policy_dtype": "bfloat16", "model_prefix": False, "old_mlp_names": True}),
    ("tiny", {"format": "openpi"}),
    ("tiny", {"format": "openpi", "policy": "pi05", "storage": "bf16", "policy_dtype": "bfloat16", "chunk_size": 7}),
    ("small", {"policy": "pi05", "layers": 2, "vision_layers": 1, "cameras": ("observation.images.only",), "chunk_size": 20}),
    ("small", {"layers": 3, "vision_layers": 2, "cameras": ("observation.images.only",), "chunk_size": 20}),
])
def test_named_sizes(tmp_path, size, changes):
    case = Case(tmp_path, make_spec(size, seed=3, **changes))
    case.check_stages((4, 10))
    case.check_guided(10)


@pytest.mark.parametrize("changes", [{}, {"chunk_size": 3, "layers": 1}, {"max_action_dim": 9, "storage": "bf16"}])
def test_trained_real_time_chunking(tmp_path, changes):
    case = Case(tmp_path, make_spec("tiny", seed=5, policy="pi05", rtc_max_delay=2, **changes))
    case.check_stages((4,))
    for delay in (1, 2):
        case.check_joined(10, delay)
    case.check_guided(4)


@pytest.mark.parametrize("policy", ["pi0", "pi05"])
def test_no_guidance_is_plain_euler(tmp_path, policy):
    """A guidance of zero changes no bit, whatever previous actions are bound."""
    case = Case(tmp_path, make_spec("tiny", seed=4, policy=policy))
    case.check_stages((4,))
    plain, _ = case.host.denoise(case.noise, case.state, case.cache, 4)
    bound, _ = case.host.denoise(case.noise, case.state, case.cache, 4, case.previous, case.weights, [0.0] * 4)
    assert np.array_equal(plain, bound)


def test_guidance_formula():
    """The weights at ten steps, worked out by hand."""
    times = [float(np.float32(1 - k / 10)) for k in range(10)]
    assert np.allclose(
        [guidance(time, 10.0) for time in times], [10, 9.1111, 4.25, 2.7619, 2.1667, 2, 2.1667, 2.7619, 4.25, 9.1111], atol=1e-3,
    )


@pytest.mark.parametrize("policy", ["pi0", "pi05"])
def test_half_precision(tmp_path, policy):
    """fp16 bundles keep what must stay f32, and stay near the oracle."""
    case = Case(tmp_path, make_spec("tiny", seed=6, policy=policy), Options(precision="fp16"))
    embeds = case.host.images(case.pixels[case.present])
    cache = case.host.prefix(embeds, case.tokens)
    assert embeds.dtype == np.float16 and all(value.dtype == np.float16 for value in cache.values())
    wanted_cache, pad = case.oracle.run_prefix(case.pixels, case.present, case.tokens, case.max_tokens)
    for i, (keys, values) in enumerate(wanted_cache):
        assert difference(cache[f"present.{i}.key"][0], keys[pad]) <= 2e-3
        assert difference(cache[f"present.{i}.value"][0], values[pad]) <= 2e-3
    actions, velocities = case.host.denoise(case.noise, case.state, cache, 10)
    wanted, wanted_velocities = case.oracle.sample(case.noise, case.state, wanted_cache, pad, 10)
    assert actions.dtype == np.float32
    assert difference(velocities, wanted_velocities) <= 2e-3
    assert difference(actions, wanted) <= 2e-3
