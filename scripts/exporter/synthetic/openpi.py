"""config.json and the assets of a checkpoint, as openpi's conversion to PyTorch writes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from .spec import CheckpointSpec

ASSET = "arm"


def write_openpi(directory: Path, spec: CheckpointSpec) -> None:
    config = {
        "action_dim": spec.max_action_dim,
        "action_horizon": spec.chunk_size,
        "paligemma_variant": "gemma_2b",
        "action_expert_variant": "gemma_300m",
        "precision": spec.policy_dtype,
    }
    (directory / "config.json").write_text(json.dumps(config, indent=2))
    random = np.random.default_rng([spec.seed, 2])
    stats = {"state": _statistics(random, spec.state_dim), "actions": _statistics(random, spec.action_dim)}
    asset = directory / "assets" / ASSET
    asset.mkdir(parents=True)
    (asset / "norm_stats.json").write_text(json.dumps({"norm_stats": stats}, indent=2))


def _statistics(random: np.random.Generator, length: int) -> dict[str, list[float]]:
    mean, std = random.normal(0, 0.5, length), random.uniform(0.2, 1.5, length)
    low, high = (mean + std * (at + random.uniform(-0.1, 0.1, length)) for at in (-2.3, 2.4))
    return {name: list(map(float, values)) for name, values in (("mean", mean), ("std", std), ("q01", low), ("q99", high))}
