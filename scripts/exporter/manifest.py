"""manifest.json: everything the runtime must know about a bundle."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

from . import __version__
from .config import ACTION, OPENPI, PI05, STATE, PolicyConfig
from .errors import ExportError
from .forms import Portable, choose_forms
from .graph import NUMPY, Graph
from .model import Dimensions
from .processors import Processing

FORMAT_VERSION = 1
COMPUTE = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32", "int4": "f32"}
# Of weights in fewer bits than what they are multiplied with, which only the calibrated can tell how.
QUANTISED = ("int8", "int4")
UNQUANTISED = tuple(precision for precision in COMPUTE if precision not in QUANTISED)


@dataclass(frozen=True)
class Options:
    """What the user chose, where the checkpoint leaves a choice."""

    precision: str = "fp32"
    target: str | None = None  # what runs it: cpu, or cuda for bf16
    onnxruntime_version: str | None = None  # the oldest that is to take the graphs for cuda; None: the oldest that can
    tensorrt_version: str = "10.3"
    num_steps: int | None = None
    prompt: str | None = None
    # None: as newer versions of lerobot, and a warning where that may be wrong.
    letterbox_pad: float | None = None
    pad_state_in_prompt: bool | None = None
    golden: bool = True
    range_scan: bool = True
    vision_heads: int | None = None
    # Keys of the checkpoint's JSON files, separated by commas, that may be unknown.
    ignore_keys: str | None = None
    tokenizer: Path | None = None
    require_cameras: str | None = None
    # The prefix's length is padded to a multiple of this; None: exact.
    prefix_bucket: int | None = None
    # Observations to calibrate a quantised precision with, in place of the golden ones; products that are kept out of int8.
    calibrate: Path | None = None
    keep: str | None = None
    force: bool = False
    # What openpi's checkpoints do not hold; see openpi.py.
    norm_stats: Path | None = None
    state_dim: int | None = None
    action_dim: int | None = None
    delta_actions: str | None = None
    state_in_prompt: bool | None = None
    max_tokens: int | None = None
    action_horizon: int | None = None
    rename: str | None = None
    adapt_to_pi: bool | None = None
    rotary: str | None = None

    @property
    def runs_on(self) -> str:
        """The target: bf16 is what the CPU provider has no products in; the rest runs anywhere."""
        return self.target or ("cuda" if self.precision == "bf16" else "cpu")

    @property
    def compute(self) -> str:
        """The dtype of activations, token rows and whatever goes from graph to graph."""
        return COMPUTE[self.precision] if self.runs_on == "cpu" or self.precision not in QUANTISED else "f16"

    @property
    def forms(self) -> Portable:
        newer = "1.31" if self.precision == "bf16" or self.prefix_bucket else None
        if self.target == "cuda" and newer and self.onnxruntime_version == "1.23":
            raise ExportError(f"--onnxruntime-version 1.23: only {newer} has the operators for --precision bf16 and for --prefix-bucket")
        return choose_forms(self.target or "cpu", self.onnxruntime_version or newer or "1.23", self.tensorrt_version)


def build_manifest(
    checkpoint: str,
    model_sha256: str,
    config: PolicyConfig,
    processing: Processing,
    dimensions: Dimensions,
    graphs: list[Graph],
    required_cameras: set[str],
    golden: str | None,
    files: dict[str, dict],
    options: Options,
    forms: Portable | None = None,
    quantization: dict | None = None,
) -> dict:
    """The manifest; ``forms``: those of the graphs, where the options alone do not tell; ``quantization``: see ``quantization.py``."""
    names = config.action_names or processing.action_names
    mask = processing.relative_mask
    letterbox_pad = -1.0 if options.letterbox_pad is None else options.letterbox_pad
    conventions: dict = {"letterbox_pad": letterbox_pad}
    prompt_format = processing.prompt_format
    if prompt_format == "pi05_state":
        conventions["pad_state_in_prompt"] = bool(options.pad_state_in_prompt)
        prompt_format = "pi05_padded_state" if options.pad_state_in_prompt else prompt_format
    openpi = config.format == OPENPI
    return {
        "format_version": FORMAT_VERSION,
        "policy": config.policy,
        "exporter": f"pi0-edge {__version__}",
        "precision": options.precision,
        "target": options.runs_on,
        "opset": max(graph.opset for graph in graphs),
        **(forms or options.forms).recorded(config.policy),
        "source": {
            "format": config.format,
            "checkpoint": checkpoint,
            "model_sha256": model_sha256,
            "dtype": config.dtype,
            "conventions": conventions,
            **({"norm_stats": processing.norm_stats} if openpi else {}),
        },
        "dimensions": asdict(dimensions),
        "cameras": [{"name": name, "required": name in required_cameras} for name in config.cameras],
        "rename": processing.rename,
        "image": {
            "resize": "bilinear", "antialias": openpi, "pad_value": letterbox_pad, "pad_side": "top_left" if config.old else "center",
        },
        "state": {
            "name": "state" if openpi else STATE,
            "dim": config.state_dim,
            "padded_dim": config.max_state_dim,
            # Training padded the state before it was normalised and written into the prompt.
            **({"normalized_dim": processing.state.width} if (processing.state.width or 0) > config.state_dim else {}),
            "names": None,
            "normalization": processing.state.to_json(),
        },
        "action": {
            "name": "actions" if openpi else ACTION,
            "dim": config.action_dim,
            "padded_dim": config.max_action_dim,
            "names": list(names) if names else None,
            "normalization": processing.action.to_json(),
            "relative_mask": list(mask) if mask is not None else None,
            "limits": None,
        },
        **({"adapt_to_pi": True} if processing.adapt_to_pi else {}),
        "prompt": {
            "format": prompt_format,
            "max_tokens": processing.max_tokens,
            **({"truncation": True} if processing.truncates else {}),
            "default": options.prompt,
            "tokenizer": "tokenizer.json",
        },
        "flow": {
            "convention": "noise_at_one",
            "num_steps": options.num_steps or config.num_steps,
            "min_period": config.min_period,
            "max_period": config.max_period,
            **({"times": "accumulated"} if openpi else {}),
            **({"rtc_training_max_delay": config.rtc_max_delay} if config.rtc_max_delay else {}),
        },
        "rope": {"theta": 10000.0, "inv_freq": "bf16" if config.rounded_rotary else "f32"},
        **({"quantization": quantization} if quantization else {}),
        "token_embedding": {
            "file": "token_embedding.bin",
            "dtype": options.compute,
            "rows": dimensions.vocab_size,
            "width": dimensions.prefix_width,
        },
        **({"prefix_bucket": options.prefix_bucket} if options.prefix_bucket is not None else {}),
        "graphs": {
            graph.name: {"file": graph.path.name, "inputs": graph.inputs, "outputs": graph.outputs} for graph in graphs
        },
        "golden": golden,
        "files": files,
    }


def undecided(config: PolicyConfig, processing: Processing, options: Options) -> list[str]:
    """Warnings where a lerobot checkpoint does not tell how it was trained and nobody said it."""
    if config.policy != PI05 and options.pad_state_in_prompt is not None:
        raise ExportError(f"--pad-state-in-prompt: {config.path.parent} is a {config.policy} policy, whose prompt has no state")
    # Relative actions came to lerobot after both conventions had changed, so that pipelines with that step are clear.
    if processing.knows_relative:
        return []
    if config.old:
        return []
    unknown = "the checkpoint does not tell which it was trained with; exported as by later ones, choose with"
    warnings = []
    if options.letterbox_pad is None:
        warnings.append(
            f"lerobot 0.4.4 and older padded images with -3, later ones with -1, and {unknown} --letterbox-pad=-3 or --letterbox-pad=-1"
        )
    if config.policy == PI05 and options.pad_state_in_prompt is None and config.state_dim != config.max_state_dim:
        warnings.append(
            f"lerobot 0.4.4 and older wrote the state padded to {config.max_state_dim} values into the prompt, later ones its "
            f"{config.state_dim} values, and {unknown} --pad-state-in-prompt or --no-pad-state-in-prompt"
        )
    return warnings


def embedding_factor(width: int) -> float:
    """What token rows are multiplied by: transformers keeps the square root as an f32."""
    return float(NUMPY["f32"].type(math.sqrt(width)))
