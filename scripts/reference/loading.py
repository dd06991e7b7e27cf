"""Loads a checkpoint directory into lerobot's policy and processor pipelines, on the CPU in float32."""

import contextlib
import json
import pathlib
import tempfile
from importlib.metadata import version
from unittest import mock

import torch
from exporter.errors import ExportError
from exporter.tokenizer import SENTENCEPIECE, find_tokenizer
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.policies.factory import make_pre_post_processors
from lerobot.policies.common.vla_utils import pad_vector
from lerobot.policies.pi0.modeling_pi0 import PI0Policy
from lerobot.policies.pi05.modeling_pi05 import PI05Policy
from lerobot.policies.pi05.processor_pi05 import Pi05PrepareStateTokenizerProcessorStep
from lerobot.policies.utils import prepare_observation_for_inference
from lerobot.processor import ObservationProcessorStep, PolicyProcessorPipeline
from lerobot.utils.constants import ACTION, OBS_STATE
from safetensors.torch import load_file

from . import dimensions as dims
from .dimensions import CheckpointError

POLICIES = {"pi0": PI0Policy, "pi05": PI05Policy}

# Released PaliGemma: the shapes cannot tell how many heads a SigLIP layer has.
VISION_HEADS = 16


class Reference:
    """One checkpoint as lerobot runs it."""

    def __init__(self, directory, vision_heads=VISION_HEADS, pad_state_in_prompt=False, tokenizer=None):
        self.directory = pathlib.Path(directory)
        self.config, self.rtc_max_delay = _config(self.directory)
        self.policy, self.dimensions = load_policy(self.directory, self.config, vision_heads)
        self.preprocessor, self.postprocessor = _processors(self.directory, self.config, tokenizer)
        # As lerobot does where a data set comes with the policy: what the base model had may still stand in config.json.
        for features, key, kind, pipeline in (
            (self.config.input_features, OBS_STATE, FeatureType.STATE, self.preprocessor),
            (self.config.output_features, ACTION, FeatureType.ACTION, self.postprocessor),
        ):
            if width := _width_of_statistics(pipeline, key, kind):
                features[key] = PolicyFeature(kind, (width,))
        if pad_state_in_prompt:
            self.preprocessor.steps = [*pad_before_prompt(self.preprocessor.steps, self.config)]

    @property
    def cameras(self):
        """Camera keys of the policy, in its order; lerobot's always-empty slots left out."""
        return [key for key in self.config.image_features if not key.startswith("observation.images.empty_camera_")]

    @property
    def state_dim(self):
        return self.config.input_features["observation.state"].shape[0]

    @property
    def renamed(self):
        """{policy key: key the robot uses}"""
        maps = [getattr(step, "rename_map", {}) for step in self.preprocessor.steps]
        return {new: old for names in maps for old, new in names.items()}


    @property
    def max_tokens(self):
        return self._tokenizer_step()[1].max_length

    @property
    def truncates(self):
        """Whether a prompt of more than `max_tokens` is cut off there."""
        return self._tokenizer_step()[1].truncation

    def prompt_tokens(self, prompt, state):
        """How many tokens the prompt that lerobot makes of a task and a state has, if none are cut off."""
        index, step = self._tokenizer_step()
        before = PolicyProcessorPipeline(
            steps=list(self.preprocessor.steps[:index]),
            to_transition=self.preprocessor.to_transition,
            to_output=self.preprocessor.to_output,
        )
        key = self.renamed.get(OBS_STATE, OBS_STATE)
        raw = prepare_observation_for_inference({key: state.copy()}, torch.device("cpu"), task=prompt)
        return len(step.input_tokenizer(before(raw)["task"][0])["input_ids"])

    def _tokenizer_step(self):
        return next((i, step) for i, step in enumerate(self.preprocessor.steps) if hasattr(step, "input_tokenizer"))


def _config(directory):
    path = directory / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{path} not found: is {directory} a lerobot checkpoint directory?")
    written = json.loads(path.read_text())
    # Later versions of lerobot know these keys, and older ones the last; this one must not see them.
    rtc_max_delay = written.pop("rtc_training_max_delay", 0)
    for key in ("use_visual_memory", "use_proprioceptive_memory"):
        if written.pop(key, False):
            raise CheckpointError(f"{path}: {key} is true, which lerobot {version('lerobot')} cannot run")
    written = {key: value for key, value in written.items() if not key.startswith("memory_")}
    if "num_steps" in written:
        written["num_inference_steps"] = written.pop("num_steps")
    with tempfile.TemporaryDirectory() as known:
        (pathlib.Path(known) / "config.json").write_text(json.dumps(written))
        config = PreTrainedConfig.from_pretrained(known)
    if config.type not in POLICIES:
        raise CheckpointError(f"{path}: type is '{config.type}', expected one of {', '.join(POLICIES)}")
    if config.image_resolution[0] != config.image_resolution[1]:
        raise CheckpointError(f"{path}: image_resolution {config.image_resolution} is not square, lerobot runs square ones only")
    config.compile_model = False
    config.rtc_config = None
    return config, rtc_max_delay


def load_policy(directory, config, vision_heads=VISION_HEADS, dtype="float32", wanted=lambda key: True, random_on=None):
    """lerobot's PI0Policy or PI05Policy with float32 weights left memory-mapped.

    Its `from_pretrained` gives the same policy (scripts/tests_reference holds us to
    that), but needs room for the weights twice, keeps to the released dimensions, and only
    prints a warning when a tensor is missing.

    `dtype`: as config.json can say it; "bfloat16" casts what lerobot casts.
    `wanted`: parameters for whose key this is false stay without memory.
    `random_on`: a device, where random weights of shapes.json's shapes are made in place of the checkpoint's.
    """
    path = directory / ("shapes.json" if random_on else "model.safetensors")
    if not path.is_file():
        raise CheckpointError(f"{path} not found")
    tensors = _random(path, getattr(torch, dtype), random_on) if random_on else load_file(path)
    tensors = {key.replace("_orig_mod.", ""): tensor for key, tensor in tensors.items()}
    shapes = {key.removeprefix("model."): tuple(tensor.shape) for key, tensor in tensors.items()}
    found = dims.read(shapes, vision_heads)
    side = config.image_resolution[0] // found.vision.patch_size
    if side * side != found.image_tokens:
        raise CheckpointError(
            f"config.json: image_resolution {config.image_resolution} gives {side * side} patches,"
            f" but model.safetensors has {found.image_tokens} patch positions"
        )

    trained_bf16 = config.dtype == "bfloat16"
    config.dtype = dtype
    config.device = None  # parameters without memory cannot be moved
    with dims.following(found, config.type), parameters_on_meta():
        policy = POLICIES[config.type](config)
    config.device = "cpu"
    _assign(policy, tensors, path, wanted)
    if trained_bf16 and dtype == "float32":
        round_rope(policy)
    return policy.eval(), found


def _random(path, dtype, device):
    shapes = json.loads(path.read_text())
    return {key: torch.empty(shape, dtype=dtype, device=device).normal_(0, 0.02) for key, shape in shapes.items()}


@contextlib.contextmanager
def parameters_on_meta():
    """Parameters made here hold no memory; buffers, such as the rotary frequencies, are real."""
    register = torch.nn.Module.register_parameter

    def register_meta(module, name, parameter):
        if parameter is not None:
            parameter = torch.nn.Parameter(parameter.to("meta"), requires_grad=False)
        register(module, name, parameter)

    with mock.patch.object(torch.nn.Module, "register_parameter", register_meta):
        yield


def _assign(policy, tensors, path, wanted):
    dtypes = {key: parameter.dtype for key, parameter in policy.named_parameters()}
    state = {}
    for key, tensor in policy._fix_pytorch_state_dict_keys(tensors, policy.config).items():
        if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise CheckpointError(f"{path}: tensor '{key}' is {tensor.dtype}, expected float32, float16 or bfloat16")
        key = key if key.startswith("model.") else f"model.{key}"
        if wanted(key):
            state[key] = tensor.to(dtypes.get(key, tensor.dtype))
    try:
        missing, unexpected = policy.load_state_dict(state, strict=False, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: {error}") from error
    # Inference never touches the language-model heads, and a checkpoint may lack either.
    heads = [key for key in missing if key.endswith("lm_head.weight")]
    missing = [key for key in missing if wanted(key) and key not in heads]
    if missing or unexpected:
        raise CheckpointError(f"{path}: missing tensors {missing}, unexpected tensors {unexpected}")
    for key in heads:
        # lerobot looks for the policy's device at its first parameter, which is a head.
        policy.get_submodule(key.removesuffix(".weight")).weight = torch.nn.Parameter(torch.empty(0), requires_grad=False)


def round_rope(policy):
    """Rotary frequencies as a policy saved with dtype "bfloat16" has them.

    lerobot casts the whole model to bfloat16 and then only parameters back, so the
    frequencies stay rounded even where the arithmetic is float32.
    """
    both = policy.model.paligemma_with_expert
    for model in (both.paligemma.model.language_model, both.gemma_expert.model):
        rotary = model.rotary_emb
        rotary.inv_freq = rotary.inv_freq.to(torch.bfloat16).float()


def _processors(directory, config, tokenizer):
    overrides = {"device_processor": {"device": "cpu"}}
    path = directory / "policy_preprocessor.json"
    if not path.is_file():
        raise CheckpointError(f"{path} not found: export.py says what to do")
    steps = json.loads(path.read_text(encoding="utf-8-sig"))["steps"]
    name = next((step["config"].get("tokenizer_name") for step in steps if step.get("registry_name") == "tokenizer_processor"), None)
    try:
        tokenizer = find_tokenizer(directory, name, tokenizer)
    except ExportError as error:
        raise CheckpointError(str(error)) from error
    if tokenizer.suffix == SENTENCEPIECE:
        raise CheckpointError(f"{tokenizer}: lerobot needs a tokenizer.json")
    return make_pre_post_processors(
        config,
        pretrained_path=str(directory),
        preprocessor_overrides=overrides | {"tokenizer_processor": {"tokenizer_name": str(tokenizer.parent)}},
        postprocessor_overrides=overrides,
    )


def _width_of_statistics(pipeline, key, kind):
    """Entries that the pipeline has statistics of; None where it does not use them."""
    step = next(step for step in pipeline.steps if hasattr(step, "norm_map"))
    used = {"MEAN_STD": "mean", "MIN_MAX": "min", "QUANTILES": "q01", "QUANTILE10": "q10"}.get(step.norm_map.get(kind, "IDENTITY"))
    statistics = step.state_dict()
    return statistics[f"{key}.{used}"].shape[-1] if f"{key}.{used}" in statistics else None


def pad_before_prompt(steps, config):
    """The steps with the state padded where lerobot 0.4.4 and older did: before it is written into the prompt."""
    padded = False
    for step in steps:
        if isinstance(step, Pi05PrepareStateTokenizerProcessorStep):
            yield PadState(config.max_state_dim)
            padded = True
        yield step
    if not padded:
        raise CheckpointError(f"--pad-state-in-prompt: a {config.type} policy has no state in its prompt")


class PadState(ObservationProcessorStep):
    def __init__(self, width):
        self.width = width

    def observation(self, observation):
        return observation | {OBS_STATE: pad_vector(observation[OBS_STATE], self.width)}

    def transform_features(self, features):
        return features
