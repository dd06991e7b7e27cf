"""An openpi checkpoint in its PyTorch form: model.safetensors, config.json or none, and assets/**/norm_stats.json.

openpi keeps most of what a policy is in its Python configuration, beside the checkpoint and not in it. What the files tell is
read from them; what they do not tell has openpi's own default and an option, and where a wrong guess would go unnoticed, a
warning or an error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .config import OPENPI, PI0, PI05, VARIANTS, PolicyConfig
from .errors import ExportError
from .json_file import JsonObject
from .manifest import Options
from .model import EXPERT, VISION, plain_name
from .processors import Processing
from .statistics import Normalization
from .weights_file import WeightsFile

CAMERAS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
STATISTICS = "norm_stats.json"
EPS = 1e-6
NUM_STEPS = 10
ALOHA = 14  # values of its state and of its action
MIN_PERIOD, MAX_PERIOD = 4e-3, 4.0
MAX_TOKENS = {PI0: 48, PI05: 200}
ONLY_LEROBOT = ("letterbox_pad", "pad_state_in_prompt", "ignore_keys")
# Keys of config.json that inference has no use for.
IRRELEVANT = ("pytorch_compile_mode",)
# Options that only these checkpoints need.
OPTIONS = (
    "norm_stats", "state_dim", "action_dim", "delta_actions", "state_in_prompt", "max_tokens", "action_horizon", "rename",
    "adapt_to_pi", "rotary",
)


def is_openpi(directory: Path) -> bool:
    """Whether openpi wrote the directory. lerobot's config.json says which type of policy it is of; openpi's does not."""
    path, weights = directory / "config.json", directory / "model.safetensors"
    if path.exists():
        content = JsonObject.read(path).content
        return "type" not in content and "action_horizon" in content
    # openpi's training saves none. Only lerobot has its model inside of another module.
    return weights.exists() and not any(name.startswith("model.") for name in WeightsFile(weights).tensors)


def read_openpi(directory: Path, options: Options) -> tuple[PolicyConfig, Processing]:
    for name in ONLY_LEROBOT:
        if getattr(options, name) is not None:
            flag = "--" + name.replace("_", "-")
            raise ExportError(f"{flag}: {directory} is an openpi checkpoint, which leaves no choice there; it is for lerobot's")
    file = WeightsFile(directory / "model.safetensors")
    shapes = {plain_name(name): tensor.shape for name, tensor in file.tensors.items()}
    policy = PI05 if EXPERT + "norm.dense.weight" in shapes else PI0
    model = _read_model(directory, file, shapes, policy, options)
    path, stats = _find_statistics(directory, options.norm_stats)
    in_prompt = policy == PI05 and model.state_in_prompt is not False
    state = _read_statistics(stats.object("state"), policy, model.action_dim, options.state_dim, "--state-dim", in_prompt)
    action = _read_statistics(stats.object("actions"), policy, model.action_dim, options.action_dim, "--action-dim")
    if options.adapt_to_pi and (state.length, action.length) != (ALOHA, ALOHA):
        raise ExportError(f"--adapt-to-pi: ALOHA has {ALOHA} values of state and action; here are {state.length} and {action.length}")
    config = PolicyConfig(
        path=directory / "config.json",
        policy=policy,
        cameras=CAMERAS,
        state_dim=state.length,
        action_dim=action.length,
        max_state_dim=model.action_dim,
        max_action_dim=model.action_dim,
        chunk_size=model.action_horizon,
        num_steps=NUM_STEPS,
        image_size=model.image_size,
        min_period=MIN_PERIOD,
        max_period=MAX_PERIOD,
        dtype=model.precision,
        action_names=None,
        # Training in JAX never rounds them, and what openpi's PyTorch does in bfloat16 follows from how it casts a model.
        rounded_rotary=options.rotary == "bf16",
        format=OPENPI,
        notes=tuple(_notes(policy, model, state, action, options)),
    )
    processing = Processing(
        rename=_rename(options),
        max_tokens=model.max_tokens or MAX_TOKENS[policy],
        tokenizer_name=None,
        prompt_format="pi05_state" if in_prompt else "cleaned_newline",
        truncates=True,
        adapt_to_pi=bool(options.adapt_to_pi),
        state=state,
        action=action,
        relative_mask=_delta_mask(options.delta_actions, state.length, action.length),
        action_names=None,
        knows_relative=False,
        norm_stats=path.relative_to(directory).as_posix() if path.is_relative_to(directory) else path.name,
    )
    return config, processing


def _notes(policy: str, model: _Model, state: _Statistics, action: _Statistics, options: Options) -> list[str]:
    """What the checkpoint does not tell and nobody said, and what was made of the rest."""
    found = []
    if model.unknown:
        found.append(f"config.json: {', '.join(model.unknown)}: not known to openpi, and exported as if it were not there")
    if state.width != state.length:
        found.append(f"the prompt holds {state.width} values of the state, padded as in training; the robot gives {state.length}")
    if options.adapt_to_pi is None and state.length == action.length == ALOHA:
        found.append(
            f"a robot of {ALOHA} joints may be an ALOHA, whose joints and grippers openpi converts (adapt_to_pi); exported without, "
            "choose with --adapt-to-pi or --no-adapt-to-pi"
        )
    if options.delta_actions is None:
        found.append(
            "openpi's checkpoints do not tell whether actions are deltas to the state; exported as absolute, choose with "
            "--delta-actions (openpi's mask, such as 6,-1,6,-1) or --delta-actions=none"
        )
    if policy == PI05 and model.state_in_prompt is None:
        found.append(
            "openpi's checkpoints do not tell whether the prompt holds the state; exported with it, choose with --state-in-prompt "
            "or --no-state-in-prompt (discrete_state_input=False in the training configuration, as pi05_libero has it)"
        )
    if model.precision == "bfloat16" and options.rotary is None:
        found.append(
            "rotary frequencies are exported in f32, as JAX trains with them; a policy that was trained in bfloat16 by openpi's "
            "PyTorch code wants --rotary=bf16"
        )
    return found


@dataclass(frozen=True)
class _Model:
    """What config.json or, without one, the options say, and the size of images."""

    action_dim: int
    action_horizon: int
    precision: str
    image_size: tuple[int, int]
    max_tokens: int | None
    state_in_prompt: bool | None
    unknown: list[str]  # keys of config.json


def _read_model(
    directory: Path, file: WeightsFile, shapes: dict[str, tuple[int, ...]], policy: str, options: Options
) -> _Model:
    path, unknown = directory / "config.json", []
    max_tokens, state_in_prompt = options.max_tokens, options.state_in_prompt
    if path.exists():
        config = JsonObject.read(path)
        horizon = _agreed(config, "action_horizon", int, options.action_horizon, "--action-horizon")
        max_tokens = _agreed(config, "max_token_len", int, options.max_tokens, "--max-tokens")
        state_in_prompt = _agreed(config, "discrete_state_input", bool, options.state_in_prompt, "--state-in-prompt")
        action_dim = config.count("action_dim")
        if config.get("pi05", bool, policy == PI05) != (policy == PI05):
            raise config.error("pi05", f"is {config.content['pi05']}, and the weights are a {policy} policy's")
        for key in ("paligemma_variant", "action_expert_variant"):
            variant = config.get(key, str, VARIANTS[0])
            if variant.endswith("_lora"):
                raise config.error(key, f'is "{variant}"; merge the adapters into the weights, and convert that')
        # The conversion to PyTorch says precision, openpi's own configuration dtype.
        precision = config.get("precision", str, config.get("dtype", str, "bfloat16"))
        unknown = [key for key in config.never_asked() if key not in IRRELEVANT]
    else:
        # As openpi's PyTorch training saves it.
        if options.action_horizon is None:
            raise ExportError(
                f"{path}: no such file, so that nothing tells how many actions a chunk has; give it with --action-horizon"
            )
        horizon, action_dim = options.action_horizon, _shape(file, shapes, "action_in_proj.weight", 2)[1]
        precision = "bfloat16" if any(tensor.dtype == "BF16" for tensor in file.tensors.values()) else "float32"
    if precision not in ("float32", "bfloat16"):
        raise ExportError(f'{path}: precision: is "{precision}", must be float32 or bfloat16')
    if state_in_prompt and policy == PI0:
        raise ExportError(f"--state-in-prompt: {directory} is a {policy} policy, whose state is an input of its own")
    patches = _shape(file, shapes, VISION + "embeddings.position_embedding.weight", 2)[0]
    patch = _shape(file, shapes, VISION + "embeddings.patch_embedding.weight", 4)[2]
    side = math.isqrt(patches)
    if side * side != patches:
        raise file.error(f"{VISION}embeddings.position_embedding.weight: {patches} patches do not make a square image")
    return _Model(action_dim, horizon, precision, (side * patch, side * patch), max_tokens, state_in_prompt, unknown)


def _agreed(config: JsonObject, key: str, kind: type, given: int | bool | None, flag: str) -> int | bool | None:
    """What config.json says, or else the option; the two must not contradict each other."""
    value = config.get(key, kind, None)
    if value is None:
        return given
    if kind is int:
        config.count(key)
    if given not in (None, value):
        raise ExportError(f"{flag}: {given} contradicts {config.path}, where {key} is {value}")
    return value


def _shape(file: WeightsFile, shapes: dict[str, tuple[int, ...]], name: str, rank: int) -> tuple[int, ...]:
    shape = shapes.get(name)
    if shape is None:
        raise file.error(f"{name}: missing tensor")
    if len(shape) != rank:
        raise file.error(f"{name}: has shape {list(shape)}, expected {rank} dimensions")
    return shape


def _find_statistics(directory: Path, given: Path | None) -> tuple[Path, JsonObject]:
    assets = directory / "assets"
    if given is not None:
        # An asset's name, or a file anywhere.
        places = [assets / given / STATISTICS, given / STATISTICS, given]
        path = next((place for place in places if place.is_file()), None)
        if path is None and not given.is_dir():
            raise ExportError(f"--norm-stats: neither {places[0]} nor {given} is a file")
        path = path or _only_statistics(given)
    else:
        path = _only_statistics(assets)
    return path, JsonObject.read(path).object("norm_stats")


def _only_statistics(assets: Path) -> Path:
    found = sorted(assets.rglob(STATISTICS))
    if not found:
        raise ExportError(
            f"{assets}: holds no {STATISTICS}, so that nothing tells how state and actions are normalised; name the file, or a "
            "directory above it, with --norm-stats: it is in the assets of the training run's checkpoint, or in openpi's "
            "assets/CONFIG_NAME"
        )
    if len(found) > 1:
        names = ", ".join(path.parent.relative_to(assets).as_posix() for path in found)
        raise ExportError(f"{assets}: holds statistics of several robots: {names}; choose one with --norm-stats")
    return found[0]


@dataclass(frozen=True)
class _Statistics(Normalization):
    """A normalisation by openpi's rules: in double precision, with an eps on both ways."""

    length: int = 0


def _read_statistics(
    stats: JsonObject, policy: str, width: int, given: int | None, flag: str, keep_padding: bool = False
) -> _Statistics:
    """Statistics of the first ``given`` values. ``keep_padding``: and of all that are padding behind them."""
    quantiles = policy == PI05
    names = ("q01", "q99") if quantiles else ("mean", "std")
    values = {name: _vector(stats, name) for name in names}
    lengths = {name: len(vector) for name, vector in values.items()}
    length = lengths[names[0]]
    if lengths[names[1]] != length:
        raise stats.error(names[1], f"has {lengths[names[1]]} values, {names[0]} has {length}")
    if given is not None:
        if given > length:
            raise ExportError(f"{flag}: {given} is more than the {length} values that {stats.path} has statistics of")
        length = given
    elif zeros := _zeros_at_the_end(values):
        raise stats.error(
            names[0],
            f"the last {zeros} of {length} values have never been anything but zero, as padding has; give the number of values "
            f"that the robot has with {flag}" + ("; the prompt keeps all of them" if keep_padding else ""),
        )
    if not (keep_padding and all((vector[length:] == 0).all() for vector in values.values())):
        values = {name: vector[:length] for name, vector in values.items()}
    if not 1 <= len(values[names[0]]) <= width:
        raise stats.error(names[0], f"has {len(values[names[0]])} values, the model has room for 1 to {width}")
    low, high = (values[name] for name in names)
    if quantiles and (low > high).any():
        index = int(np.argmax(low > high))
        raise stats.error("q01", f"value {index} is {low[index]}, above {high[index]} of q99")
    if not quantiles and (high < 0).any():
        raise stats.error("std", "holds a negative value")
    return _Statistics("quantile_range" if quantiles else "z_score", EPS, values, length)


def _vector(stats: JsonObject, name: str) -> np.ndarray:
    values = stats.get(name, list, [])
    if not values:
        raise stats.error(name, "missing; compute the statistics anew with a newer openpi, which adds them")
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) for value in values):
        raise stats.error(name, "is not a list of finite numbers")
    return np.array(values, np.float64)


def _zeros_at_the_end(values: dict[str, np.ndarray]) -> int:
    """How many values at the end of the vector were zero throughout, as far as these statistics tell."""
    used = np.flatnonzero(np.any([vector != 0 for vector in values.values()], axis=0))
    length = len(next(iter(values.values())))
    return 0 if not len(used) else length - 1 - int(used[-1])


def _delta_mask(given: str | None, state_dim: int, action_dim: int) -> tuple[bool, ...] | None:
    """openpi's way of writing a mask: so many values that are deltas, so many (negative) that are not, and so on."""
    if given in (None, "none"):
        return None
    try:
        runs = [int(run) for run in given.split(",")]
    except ValueError:
        raise ExportError(f"--delta-actions: {given} is not a list of whole numbers such as 6,-1,6,-1, nor none") from None
    mask = [run > 0 for run in runs for _ in range(abs(run))]
    if len(mask) > action_dim or not any(mask):
        raise ExportError(f"--delta-actions: {given} marks {sum(mask)} of {len(mask)} actions, the policy has {action_dim}")
    last = len(mask) - mask[::-1].index(True)
    if last > state_dim:
        raise ExportError(f"--delta-actions: {given} makes action {last} a delta to a state of {state_dim} values")
    return tuple(mask + [False] * (action_dim - len(mask)))


def _rename(options: Options) -> dict[str, str]:
    names = {}
    for pair in (options.rename or "").split(","):
        if not pair:
            continue
        robot, separator, camera = pair.partition("=")
        if not separator or not robot or camera not in CAMERAS:
            raise ExportError(f"--rename: {pair} is not FROM=TO, where TO is one of {', '.join(CAMERAS)}")
        names[robot] = camera
    return names
