"""config.json of a lerobot PI0 or PI0.5 checkpoint: what of it the bundle needs, and refusal of what cannot be served."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Collection

from .errors import ExportError
from .json_file import JsonObject

BEFORE, AFTER = "policy_preprocessor.json", "policy_postprocessor.json"
STATE = "observation.state"
ACTION = "action"
EMPTY_CAMERA = re.compile(r"observation\.images\.empty_camera_\d+")
VARIANTS = ("gemma_2b", "gemma_300m")
PI0, PI05 = "pi0", "pi05"
LEROBOT, OPENPI = "lerobot", "openpi"

# Options that change what the policy computes, of very old checkpoints and of very new ones: none of them can be served.
MUST_BE_OFF = {
    "use_peft": "the checkpoint holds an adapter; merge it into the base model and save that",
    "adapt_to_pi_aloha": "the conversion of ALOHA's joints is not supported",
    "use_delta_joint_actions_aloha": "the conversion of ALOHA's joints is not supported",
    "use_visual_memory": "policies that remember earlier frames are not supported",
    "use_proprioceptive_memory": "policies that remember earlier states are not supported",
}


# Keys that inference has no use for: they are about training or the hub, the processor files have them, or the runtime decides.
IRRELEVANT = re.compile(
    r"(optimizer|scheduler|time_sampling|memory)_\w+|device|use_amp|push_to_hub|repo_id|private|tags|license|pretrained_\w+|"
    r"gradient_checkpointing|compile_model|compile_mode|freeze_vision_encoder|train_expert_only|"
    r"normalization_mapping|tokenizer_max_length|use_relative_actions|relative_exclude_joints|empty_cameras|"
    r"n_action_steps|rtc_config"
)
# And those that only lerobot 0.3 and older have.
OLD_IRRELEVANT = re.compile(IRRELEVANT.pattern + "|proj_width|use_cache|attention_implementation|train_state_proj")


@dataclass(frozen=True)
class PolicyConfig:
    """The policy's shape and options, as far as they do not follow from the weights."""

    path: Path
    policy: str  # PI0 or PI05
    cameras: tuple[str, ...]
    state_dim: int
    action_dim: int
    max_state_dim: int
    max_action_dim: int
    chunk_size: int
    num_steps: int
    image_size: tuple[int, int]  # height, width
    min_period: float
    max_period: float
    dtype: str
    action_names: tuple[str, ...] | None
    rounded_rotary: bool = False  # rotary frequencies are rounded to bf16
    format: str = LEROBOT  # or OPENPI: who wrote the checkpoint
    rtc_max_delay: int = 0  # rows of a clean prefix the policy was trained with
    old: bool = False  # saved by lerobot 0.3 or older, which has statistics among the weights and no processor files
    notes: tuple[str, ...] = ()  # what the user should know of how the files were read


def read_config(directory: Path, ignored: Collection[str]) -> PolicyConfig:
    path = directory / "config.json"
    if (directory / "adapter_config.json").exists():
        raise ExportError(f"{directory / 'adapter_config.json'}: {MUST_BE_OFF['use_peft']}")
    config = JsonObject.read(path, "; the checkpoint must be a directory as lerobot saves it")
    policy = _policy(config)
    old = policy == PI0 and not any((directory / name).exists() for name in (BEFORE, AFTER))

    inputs, outputs = config.object("input_features", {}), config.object("output_features", {})
    max_state, max_action = config.count("max_state_dim", 32), config.count("max_action_dim", 32)
    state_dim = _width(inputs, STATE, "STATE", max_state, padded=policy == PI0)
    dtype = _one_of(config, "dtype", ("float32", "bfloat16"), "float32")
    num_steps, notes = _num_steps(config)
    result = PolicyConfig(
        path=path,
        policy=policy,
        cameras=_cameras(inputs),
        state_dim=state_dim,
        action_dim=_width(outputs, ACTION, "ACTION", max_action),
        max_state_dim=max(max_state, state_dim),
        max_action_dim=max_action,
        chunk_size=config.count("chunk_size", 50),
        num_steps=num_steps,
        image_size=_image_size(config, old),
        min_period=_positive(config, "min_period", 4e-3),
        max_period=_positive(config, "max_period", 4.0),
        dtype=dtype,
        action_names=_action_names(config),
        # A policy that lerobot runs in bfloat16 has its rotary frequencies rounded along with its weights.
        rounded_rotary=dtype == "bfloat16",
        rtc_max_delay=_rtc_max_delay(config, policy),
        old=old,
        notes=notes,
    )
    if result.max_period <= result.min_period:
        raise config.error("max_period", f"is {result.max_period}, must be above min_period {result.min_period}")
    refuse_unknown(config, OLD_IRRELEVANT if old else IRRELEVANT, ignored)
    return result


def refuse_unknown(place: JsonObject, irrelevant: re.Pattern, ignored: Collection[str]) -> None:
    """Raises if ``place`` has keys that were not read, are not irrelevant, and that nobody wants ignored."""
    unknown = [key for key in place.never_asked() if not irrelevant.fullmatch(key) and key not in ignored]
    if unknown:
        raise place.error(
            ", ".join(unknown),
            "not known to lerobot 0.6, so that what wrote the checkpoint may compute something else than lerobot; where that is no "
            f"matter to inference, export with --ignore-keys {','.join([*ignored, *unknown])}",
        )


def _num_steps(config: JsonObject) -> tuple[int, tuple[str, ...]]:
    key, old = "num_inference_steps", "num_steps"
    if config.get(old, int, None) is None:
        return config.count(key, 10), ()
    steps = config.count(old)
    if config.count(key, steps) != steps:
        raise config.error(old, f"is {steps}, and {key} is {config.count(key)}; leave only the latter")
    return steps, (f"{config.path}: {old} is what lerobot 0.3 and older called {key}; exported with {steps} steps",)


def _policy(config: JsonObject) -> str:
    """The kind of policy, after a look for everything that could not be served."""
    kind = config.get("type", str)
    if kind not in (PI0, PI05):
        raise config.error("type", f'is "{kind}"; only "{PI0}" and "{PI05}" checkpoints can be exported')
    for key, advice in MUST_BE_OFF.items():
        if config.get(key, bool, False):
            raise config.error(key, f"is true: {advice}")
    steps = config.get("n_obs_steps", int, 1)
    if steps != 1:
        raise config.error("n_obs_steps", f"is {steps}; the policy must see one observation at a time")
    for key, default in (("paligemma_variant", "gemma_2b"), ("action_expert_variant", "gemma_300m")):
        _one_of(config, key, VARIANTS, default)
    return kind


def _cameras(inputs: JsonObject) -> tuple[str, ...]:
    visual = [name for name in inputs.content if inputs.object(name).get("type", str) == "VISUAL"]
    cameras = tuple(name for name in visual if not EMPTY_CAMERA.fullmatch(name))
    if not cameras:
        raise inputs.error("*", "no VISUAL feature; the policy needs at least one camera")
    return cameras


def _width(features: JsonObject, name: str, kind: str, most: int, padded: bool = True) -> int:
    """The feature's length, ``most`` for one that config.json does not list, as lerobot has it. At most that where it is padded:
    PI0.5's state is text in the prompt and may have any."""
    if name not in features.content:
        return most
    feature = features.object(name)
    if feature.get("type", str) != kind:
        raise feature.error("type", f'is "{feature.get("type", str)}", expected "{kind}"')
    shape = feature.get("shape", list)
    if len(shape) != 1 or not isinstance(shape[0], int) or shape[0] < 1 or (padded and shape[0] > most):
        raise feature.error("shape", f"is {shape}, expected one length from 1 to the padded width {most}")
    return shape[0]


def _image_size(config: JsonObject, old: bool) -> tuple[int, int]:
    key, size = "image_resolution", config.get("image_resolution", list, [224, 224])
    if old:
        # The older key has the width first.
        key, size = "resize_imgs_with_padding", config.get("resize_imgs_with_padding", list, size[::-1])[::-1]
    if len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
        raise config.error(key, f"is {config.content[key]}, expected two lengths")
    return size[0], size[1]


def _action_names(config: JsonObject) -> tuple[str, ...] | None:
    names = config.strings("action_feature_names", None)
    return None if names is None else tuple(names)


def _rtc_max_delay(config: JsonObject, policy: str) -> int:
    """The longest delay of the training for real-time chunking; 0 without."""
    key = "rtc_training_max_delay"
    delay = config.count(key, 0, least=0)
    if delay and policy != PI05:
        raise config.error(key, f"is {delay}; only {PI05} policies are trained for real-time chunking")
    horizon = config.count("chunk_size", 50)
    if delay >= horizon:
        raise config.error(key, f"is {delay}, must be less than the {horizon} actions of a chunk")
    return delay


def _positive(config: JsonObject, key: str, default: float) -> float:
    value = config.get(key, float, default)
    if not (math.isfinite(value) and value > 0):
        raise config.error(key, f"is {value}, must be a positive number")
    return value


def _one_of(config: JsonObject, key: str, allowed: tuple[str, ...], default: str) -> str:
    value = config.get(key, str, default)
    if value not in allowed:
        raise config.error(key, f'is "{value}", must be one of {", ".join(allowed)}')
    return value
