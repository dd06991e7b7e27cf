"""manifest.json: everything the runtime must know about a bundle."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

from . import __version__
from .config import ACTION, STATE, PolicyConfig
from .graph import NUMPY, OPSET, Graph
from .model import Dimensions
from .processors import Processing

FORMAT_VERSION = 1
COMPUTE = {"fp32": "f32", "fp16": "f16"}


@dataclass(frozen=True)
class Options:
    """What the user chose, where the checkpoint leaves a choice."""

    precision: str = "fp32"
    num_steps: int | None = None
    prompt: str | None = None
    letterbox_pad: float = -1.0
    golden: bool = True
    vision_heads: int | None = None
    tokenizer: Path | None = None
    require_cameras: str | None = None
    force: bool = False


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
) -> dict:
    names = config.action_names or processing.action_names
    mask = processing.relative_mask
    return {
        "format_version": FORMAT_VERSION,
        "policy": "pi0",
        "exporter": f"pi0-edge {__version__}",
        "precision": options.precision,
        "target": "cpu",
        "opset": OPSET,
        "source": {
            "format": "lerobot",
            "checkpoint": checkpoint,
            "model_sha256": model_sha256,
            "dtype": config.dtype,
            "conventions": {"letterbox_pad": options.letterbox_pad},
        },
        "dimensions": asdict(dimensions),
        "cameras": [{"name": name, "required": name in required_cameras} for name in config.cameras],
        "rename": processing.rename,
        "image": {"resize": "bilinear", "antialias": False, "pad_value": options.letterbox_pad, "pad_side": "center"},
        "state": {
            "name": STATE,
            "dim": config.state_dim,
            "padded_dim": config.max_state_dim,
            "names": None,
            "normalization": processing.state.to_json(),
        },
        "action": {
            "name": ACTION,
            "dim": config.action_dim,
            "padded_dim": config.max_action_dim,
            "names": list(names) if names else None,
            "normalization": processing.action.to_json(),
            "relative_mask": list(mask) if mask is not None else None,
            "limits": None,
        },
        "prompt": {
            "format": "append_newline",
            "max_tokens": processing.max_tokens,
            "default": options.prompt,
            "tokenizer": "tokenizer.json",
        },
        "flow": {
            "convention": "noise_at_one",
            "num_steps": options.num_steps or config.num_steps,
            "min_period": config.min_period,
            "max_period": config.max_period,
        },
        # A policy that lerobot runs in bfloat16 has its rotary frequencies rounded along with its weights.
        "rope": {"theta": 10000.0, "inv_freq": "bf16" if config.dtype == "bfloat16" else "f32"},
        "token_embedding": {
            "file": "token_embedding.bin",
            "dtype": COMPUTE[options.precision],
            "rows": dimensions.vocab_size,
            "width": dimensions.prefix_width,
        },
        "graphs": {
            graph.name: {"file": graph.path.name, "inputs": graph.inputs, "outputs": graph.outputs} for graph in graphs
        },
        "golden": golden,
        "files": files,
    }


def embedding_factor(width: int) -> float:
    """What token rows are multiplied by: transformers keeps the square root as an f32."""
    return float(NUMPY["f32"].type(math.sqrt(width)))
