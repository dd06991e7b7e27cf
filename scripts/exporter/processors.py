"""The two processor pipelines of a checkpoint, read as the rules the bundle carries.

lerobot runs the steps in the order of the file. The runtime has one fixed order of its own, so every step must be known, occur
once, and stand where that order has it; anything else would silently compute something different.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Collection

from .config import ACTION, AFTER, BEFORE, PI0, PI05, STATE, PolicyConfig, read_config, refuse_unknown
from .errors import ExportError
from .json_file import JsonObject
from .statistics import BUFFERS, Normalization, mode_of, read_buffers, read_normalization
from .tokenizer import PALIGEMMA
from .weights_file import WeightsFile

ALIASES = {"delta_actions_processor": "relative_actions_processor"}  # the name of 0.5.x

# The order of steps that the runtime has built in, and which of them a pipeline cannot do without.
STATE_IN_PROMPT = "pi05_prepare_state_tokenizer_processor_step"
PREPROCESSOR = {
    PI0: {
        "rename_observations_processor": False,
        "to_batch_processor": False,
        "pi0_new_line_processor": True,
        "tokenizer_processor": True,
        "device_processor": False,
        "relative_actions_processor": False,
        "normalizer_processor": True,
    },
    PI05: {
        "rename_observations_processor": False,
        "to_batch_processor": False,
        "relative_actions_processor": False,
        "normalizer_processor": True,
        STATE_IN_PROMPT: True,
        "tokenizer_processor": True,
        "device_processor": False,
    },
}
POSTPROCESSOR = {"unnormalizer_processor": True, "absolute_actions_processor": False, "device_processor": False}
# What of a step, of an entry and of a whole file inference has no use for.
STEP_IRRELEVANT = re.compile("device|exclude_joints|action_names|max_state_dim|features|norm_map|eps|normalize_observation_keys")
ENTRY_IRRELEVANT = re.compile("class|artifacts")
FILE_IRRELEVANT = re.compile("name")
# Steps that only move data about may stand anywhere.
ANYWHERE = ("rename_observations_processor", "to_batch_processor", "device_processor")


@dataclass(frozen=True)
class Processing:
    """What happens to an observation before the model and to actions after it."""

    rename: dict[str, str]
    max_tokens: int
    tokenizer_name: str | None
    state: Normalization
    action: Normalization
    relative_mask: tuple[bool, ...] | None
    action_names: tuple[str, ...] | None
    knows_relative: bool  # the pipeline has the step that makes actions relative, enabled or not
    prompt_format: str  # the manifest's name of it
    truncates: bool  # a prompt of more than max_tokens is cut there
    adapt_to_pi: bool = False  # openpi: the joints are ALOHA's, and the policy's are another robot's
    norm_stats: str | None = None  # openpi: where in the checkpoint the statistics are from


@dataclass(frozen=True)
class _Step:
    config: JsonObject
    state_file: Path | None


def read_lerobot(directory: Path, ignored: Collection[str] = ()) -> tuple[PolicyConfig, Processing]:
    """What config.json and both pipelines of a checkpoint of lerobot say. Keys of theirs that lerobot does not have are refused,
    unless they are among the ``ignored``."""
    config = read_config(directory, ignored)
    if config.old:
        return _read_old(directory, config)
    before = _read_pipeline(directory / BEFORE, PREPROCESSOR[config.policy], ignored)
    after = _read_pipeline(directory / AFTER, POSTPROCESSOR, ignored)
    max_tokens, tokenizer_name, truncates = _prompt(before["tokenizer_processor"].config)
    if config.policy == PI05:
        _one_of(before[STATE_IN_PROMPT].config, "task_key", "task", ("task",))
    state = _state_normalization(before["normalizer_processor"], config)
    action = _normalization(after["unnormalizer_processor"], ACTION, "ACTION", config.action_dim)
    config = _with_widths(config, state, action)
    mask, names = _relative(before, after, config)
    processing = Processing(
        rename=_rename(before),
        max_tokens=max_tokens,
        tokenizer_name=tokenizer_name,
        state=state,
        action=action,
        relative_mask=mask,
        action_names=names,
        knows_relative="relative_actions_processor" in before,
        prompt_format="pi05_state" if config.policy == PI05 else "append_newline",
        truncates=truncates,
    )
    for step in (*before.values(), *after.values()):
        refuse_unknown(step.config, STEP_IRRELEVANT, ignored)
    return config, processing


def _read_old(directory: Path, config: PolicyConfig) -> tuple[PolicyConfig, Processing]:
    """What a PI0 of lerobot 0.3 or older does around the model, which is code there, with the statistics among its weights."""
    content, weights = JsonObject.read(config.path), WeightsFile(directory / "model.safetensors")
    if not any(map(BUFFERS.match, weights.tensors)):
        raise ExportError(
            f"{directory / BEFORE}: no such file, and {weights.path.name} holds no statistics as lerobot 0.3 and older have them; "
            "save the policy again with its processors and the statistics of its data set"
        )
    modes = content.object("normalization_mapping", {"STATE": "MEAN_STD", "ACTION": "MEAN_STD"})
    if mode_of(modes, "VISUAL") != "IDENTITY":
        raise modes.error("VISUAL", "images are normalised by the model itself; it must be IDENTITY")
    state = read_buffers(weights, modes, "normalize_inputs", STATE, "STATE", config.state_dim)
    action = read_buffers(weights, modes, "unnormalize_outputs", ACTION, "ACTION", config.action_dim)
    note = f"{config.path}: saved by lerobot 0.3 or older; exported as that computes it, with bars at the top and left of images"
    config = replace(_with_widths(config, state, action), notes=(*config.notes, note))
    return config, Processing(
        rename={}, max_tokens=content.count("tokenizer_max_length", 48), tokenizer_name=PALIGEMMA, state=state, action=action,
        relative_mask=None, action_names=None, knows_relative=False, prompt_format="append_newline", truncates=False,
    )


def _with_widths(config: PolicyConfig, state: Normalization, action: Normalization) -> PolicyConfig:
    state_dim, action_dim = state.width or config.state_dim, action.width or config.action_dim
    notes = config.notes
    for name, had, has in ((STATE, config.state_dim, state_dim), (ACTION, config.action_dim, action_dim)):
        if had != has:
            notes += (f"{config.path}: {name} has {had} entries there, and the statistics are of {has}; exported with {has}",)
    for name, has, most in ((STATE, state_dim, config.max_state_dim), (ACTION, action_dim, config.max_action_dim)):
        if has > most and not (name == STATE and config.policy == PI05):
            raise ExportError(f"{config.path}: the statistics of {name} are of {has} entries, the model has room for {most}")
    if config.action_names is not None and len(config.action_names) != action_dim:
        raise ExportError(f"{config.path}: action_feature_names: has {len(config.action_names)} names for {action_dim} actions")
    padded = max(config.max_state_dim, state_dim)
    return replace(config, state_dim=state_dim, action_dim=action_dim, max_state_dim=padded, notes=notes)


def _read_pipeline(path: Path, known: dict[str, bool], ignored: Collection[str]) -> dict[str, _Step]:
    pipeline = JsonObject.read(path)
    found: dict[str, _Step] = {}
    place = -1
    for entry in pipeline.objects("steps"):
        name = entry.get("registry_name", str, None) or entry.get("class", str)
        name = ALIASES.get(name, name)
        if name not in known:
            raise entry.error("registry_name", f'unknown processor step "{name}"; the runtime would leave it out')
        if name in found and name != "device_processor":
            raise entry.error("registry_name", f'"{name}" occurs twice')
        if name not in ANYWHERE:
            if list(known).index(name) < place:
                raise entry.error("registry_name", f'"{name}" must come earlier: the order is {", ".join(known)}')
            place = list(known).index(name)
        config, state = entry.object("config", {}), entry.get("state_file", str, None)
        if state is not None and Path(state).name != state:
            raise entry.error("state_file", f'is "{state}"; it must name a file beside {path.name}')
        refuse_unknown(entry, ENTRY_IRRELEVANT, ignored)
        found[name] = _Step(config, None if state is None else path.parent / state)
        if name == "device_processor":
            _check_device(config)
    refuse_unknown(pipeline, FILE_IRRELEVANT, ignored)
    for name, required in known.items():
        if required and name not in found:
            raise pipeline.error("steps", f'the step "{name}" is missing')
    return found


def _check_device(config: JsonObject) -> None:
    dtype = config.get("float_dtype", str, "float32")
    if dtype != "float32":
        raise config.error("float_dtype", f'is "{dtype}"; only float32 observations can be served')


def _rename(steps: dict[str, _Step]) -> dict[str, str]:
    step = steps.get("rename_observations_processor")
    if step is None:
        return {}
    names = step.config.object("rename_map", {})
    return {key: names.get(key, str) for key in names.content}


def _prompt(tokenizer: JsonObject) -> tuple[int, str | None, bool]:
    """Most tokens, the tokenizer's name, and whether longer prompts are cut."""
    for key, default, allowed in (
        ("task_key", "task", ("task",)), ("padding_side", "right", ("right",)), ("padding", "max_length", ("max_length", "longest")),
    ):
        _one_of(tokenizer, key, default, allowed)
    truncates = tokenizer.get("truncation", bool, True)
    return tokenizer.count("max_length"), tokenizer.get("tokenizer_name", str, None), truncates


def _one_of(step: JsonObject, key: str, default: str, allowed: tuple[str, ...]) -> None:
    value = step.get(key, str, default)
    if value not in allowed:
        raise step.error(key, f'is "{value}", expected {" or ".join(allowed)}')


def _state_normalization(step: _Step, config: PolicyConfig) -> Normalization:
    if mode_of(step.config.object("norm_map"), "VISUAL") != "IDENTITY":
        raise step.config.object("norm_map").error("VISUAL", "images are normalised by the model itself; it must be IDENTITY")
    features = step.config.object("features")
    if STATE not in features.content:
        raise features.error(STATE, "missing, so that the state would reach the model as it is")
    chosen = step.config.strings("normalize_observation_keys", None)
    if chosen is not None and STATE not in chosen:
        return Normalization("identity", step.config.get("eps", float, 1e-8), {})
    kind = features.object(STATE).get("type", str)
    return _normalization(step, STATE, kind, config.state_dim)


def _normalization(step: _Step, feature: str, kind: str, length: int) -> Normalization:
    return read_normalization(step.config, step.state_file, feature, kind, length)


def _relative(
    before: dict[str, _Step], after: dict[str, _Step], config: PolicyConfig
) -> tuple[tuple[bool, ...] | None, tuple[str, ...] | None]:
    """Which actions are relative to the state, and the action names the step knows."""
    relative, absolute = before.get("relative_actions_processor"), after.get("absolute_actions_processor")
    made_relative = relative is not None and relative.config.get("enabled", bool, False)
    made_absolute = absolute is not None and absolute.config.get("enabled", bool, False)
    if made_relative != made_absolute:
        step = relative or absolute
        raise step.config.error(
            "enabled", "relative_actions_processor and absolute_actions_processor must both be enabled, or neither",
        )
    if relative is None:
        return None, None
    names = relative.config.strings("action_names", None)
    known_names = tuple(names) if names is not None and len(names) == config.action_dim else None
    if not made_relative:
        return None, known_names
    if config.state_dim < config.action_dim:
        raise relative.config.error(
            "enabled", f"{config.action_dim} actions cannot be relative to a state of {config.state_dim} values",
        )
    excluded = [token.lower() for token in relative.config.strings("exclude_joints", []) if token]
    # Dimensions without a name are relative; so are all of them where there are no names to look for.
    mask = [not any(token in name.lower() for token in excluded) for name in (names or [])[: config.action_dim]]
    mask += [True] * (config.action_dim - len(mask))
    return tuple(mask), known_names
