"""config.json and the two processor pipelines of a checkpoint, as lerobot 0.6 writes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from .spec import CheckpointSpec

STATE = "observation.state"
ACTION = "action"


def write_config(directory: Path, spec: CheckpointSpec) -> None:
    inputs, outputs = _features(spec)
    config = {
        "type": spec.policy,
        "n_obs_steps": 1,
        "input_features": inputs,
        "output_features": outputs,
        "device": "cpu",
        "use_amp": False,
        "use_peft": False,
        "push_to_hub": False,
        "repo_id": None,
        "private": None,
        "tags": None,
        "license": None,
        "pretrained_path": None,
        "pretrained_revision": None,
        "paligemma_variant": "gemma_2b",
        "action_expert_variant": "gemma_300m",
        "dtype": spec.policy_dtype,
        "chunk_size": spec.chunk_size,
        "n_action_steps": spec.chunk_size,
        "max_state_dim": spec.max_state_dim,
        "max_action_dim": spec.max_action_dim,
        "num_inference_steps": spec.num_steps,
        "time_sampling_beta_alpha": 1.5,
        "time_sampling_beta_beta": 1.0,
        "time_sampling_scale": 0.999,
        "time_sampling_offset": 0.001,
        "min_period": 0.004,
        "max_period": 4.0,
        "use_relative_actions": spec.relative,
        "relative_exclude_joints": list(spec.exclude_joints),
        "action_feature_names": spec.action_names,
        "rtc_config": None,
        "image_resolution": list(spec.image_size),
        "empty_cameras": spec.empty_cameras,
        "normalization_mapping": _norm_map(spec),
        "gradient_checkpointing": False,
        "compile_model": False,
        "compile_mode": "max-autotune",
        "freeze_vision_encoder": False,
        "train_expert_only": False,
        "optimizer_lr": 2.5e-05,
        "optimizer_betas": [0.9, 0.95],
        "optimizer_eps": 1e-08,
        "optimizer_weight_decay": 0.01,
        "optimizer_grad_clip_norm": 1.0,
        "scheduler_warmup_steps": 1000,
        "scheduler_decay_steps": 30000,
        "scheduler_decay_lr": 2.5e-06,
        "tokenizer_max_length": spec.max_tokens,
    }
    if spec.rtc_max_delay:
        config["rtc_training_max_delay"] = spec.rtc_max_delay
    _write_json(directory / "config.json", config)


def write_processors(directory: Path, spec: CheckpointSpec) -> None:
    inputs, outputs = _features(spec)
    normalizer = {"eps": 1e-08, "features": {**inputs, **outputs}, "norm_map": _norm_map(spec)}
    unnormalizer = {"eps": 1e-08, "features": outputs, "norm_map": _norm_map(spec)}
    tokenizer = {
        "max_length": spec.max_tokens, "task_key": "task", "padding_side": "right", "padding": "max_length",
        "truncation": True, "tokenizer_name": "tokenizer",
    }
    relative = {
        "enabled": spec.relative, "exclude_joints": list(spec.exclude_joints), "action_names": spec.action_names,
    }
    before = [
        ("rename_observations_processor", {"rename_map": dict(spec.rename)}),
        ("to_batch_processor", {}),
        ("pi0_new_line_processor", {}),
        ("tokenizer_processor", tokenizer),
        ("device_processor", {"device": "cpu", "float_dtype": None}),
        ("relative_actions_processor", relative),
        ("normalizer_processor", normalizer),
    ]
    if spec.policy == "pi05":
        # The state is in the prompt, so that normalising comes first.
        prepare = ("pi05_prepare_state_tokenizer_processor_step", {})
        before = [*before[:2], *before[5:], prepare, *before[3:5]]
    after = [
        ("unnormalizer_processor", unnormalizer),
        ("absolute_actions_processor", {"enabled": spec.relative}),
        ("device_processor", {"device": "cpu", "float_dtype": None}),
    ]
    if spec.old_processors:
        before = [step for step in before if step[0] != "relative_actions_processor"]
        after = [step for step in after if step[0] != "absolute_actions_processor"]
    statistics = _statistics(spec)
    _write_pipeline(directory, "policy_preprocessor", before, statistics)
    _write_pipeline(directory, "policy_postprocessor", after, statistics)


def _write_pipeline(directory: Path, name: str, steps: list, statistics: dict[str, np.ndarray]) -> None:
    written = []
    for index, (step, config) in enumerate(steps):
        entry = {"registry_name": step, "config": config}
        if step in ("normalizer_processor", "unnormalizer_processor"):
            entry["state_file"] = f"{name}_step_{index}_{step}.safetensors"
            save_file(statistics, directory / entry["state_file"])
        written.append(entry)
    _write_json(directory / f"{name}.json", {"name": name, "steps": written})


def _features(spec: CheckpointSpec) -> tuple[dict, dict]:
    inputs = {name: {"type": "VISUAL", "shape": [3, *spec.frame_size]} for name in spec.cameras}
    inputs[STATE] = {"type": "STATE", "shape": [spec.state_dim]}
    for i in range(spec.empty_cameras):
        inputs[f"observation.images.empty_camera_{i}"] = {"type": "VISUAL", "shape": [3, *spec.image_size]}
    return inputs, {ACTION: {"type": "ACTION", "shape": [spec.action_dim]}}


def _norm_map(spec: CheckpointSpec) -> dict[str, str]:
    return {"VISUAL": "IDENTITY", "STATE": spec.normalization, "ACTION": spec.normalization}


def _statistics(spec: CheckpointSpec) -> dict[str, np.ndarray]:
    """All the statistics lerobot keeps of a data set, those that no step reads included."""
    random = np.random.default_rng([spec.seed, 1])
    statistics: dict[str, np.ndarray] = {}
    shapes = {STATE: (spec.state_dim,), ACTION: (spec.action_dim,), "timestamp": (1,)}
    shapes.update({camera: (3, 1, 1) for camera in spec.cameras})
    for feature, shape in shapes.items():
        middle, spread = random.normal(0, 0.5, shape), random.uniform(0.2, 1.5, shape)
        # Offsets in units of the spread, each off by a little, so that no two statistics are mirror images.
        offsets = {"min": -3.1, "q01": -2.3, "q10": -1.3, "q50": 0.1, "q90": 1.25, "q99": 2.4, "max": 3.3}
        values = {name: middle + spread * (at + random.uniform(-0.1, 0.1, shape)) for name, at in offsets.items()}
        values.update(mean=middle, std=spread, count=np.array([20000.0]))
        statistics.update({f"{feature}.{name}": value.astype(np.float32) for name, value in values.items()})
    return statistics


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
