"""The tensors of a PI0 or PI0.5 checkpoint: names, shapes, and how large their random values are.

Scales keep activations of order one through the whole depth: a linear map preserves variance, a branch that is added to the
residual stream is halved, norm weights and biases are small but never zero, so that no term of the model goes untested.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod, sqrt
from typing import Iterator

from .spec import CheckpointSpec

BIAS = 0.1
NORM = 0.1

# What a lerobot policy with dtype "bfloat16" keeps in f32, by a part of the name.
KEPT_F32 = ("vision_tower", "multi_modal_projector", "input_layernorm", "post_attention_layernorm", "model.norm")


@dataclass(frozen=True)
class TensorSpec:
    name: str
    shape: tuple[int, ...]
    scale: float
    offset: float = 0.0

    @property
    def count(self) -> int:
        return prod(self.shape)


def storage_dtype(spec: CheckpointSpec, name: str) -> str:
    """The safetensors dtype the tensor is stored in."""
    if spec.storage == "f32":
        return "F32"
    if spec.storage == "bf16":
        return "BF16"
    cast = "paligemma_with_expert" in name and not any(part in name for part in KEPT_F32)
    return "BF16" if cast else "F32"


def checkpoint_tensors(spec: CheckpointSpec) -> list[TensorSpec]:
    """Every tensor of the checkpoint, in no particular order."""
    prefix = "model." if spec.model_prefix else ""
    return [TensorSpec(prefix + t.name, t.shape, t.scale, t.offset) for t in _tensors(spec)]


def _tensors(spec: CheckpointSpec) -> Iterator[TensorSpec]:
    both = "paligemma_with_expert."
    yield from _vision(spec, both + "paligemma.model.")
    yield from _vocabulary(spec, both)
    yield from _gemma(spec, both + "paligemma.model.language_model.", spec.prefix_width, spec.prefix_mlp)
    pi05 = spec.policy == "pi05"
    yield from _gemma(spec, both + "gemma_expert.model.", spec.expert_width, spec.expert_mlp, modulated=pi05)
    width = spec.expert_width
    mlp = "time_mlp" if spec.old_mlp_names != pi05 else "action_time_mlp"
    if not pi05:
        yield from _linear("state_proj", width, spec.max_state_dim)
    yield from _linear("action_in_proj", width, spec.max_action_dim)
    yield from _linear("action_out_proj", spec.max_action_dim, width)
    yield from _linear(f"{mlp}_in", width, width if pi05 else 2 * width)
    yield from _linear(f"{mlp}_out", width, width)


def _vocabulary(spec: CheckpointSpec, both: str) -> Iterator[TensorSpec]:
    # Rows are scaled up by sqrt(width) when they are looked up, and are of order one after that.
    shape, scale = (spec.vocab, spec.prefix_width), 1 / sqrt(spec.prefix_width)
    if spec.embed_name in ("lm_head", "both"):
        yield TensorSpec(both + "paligemma.lm_head.weight", shape, scale)
    if spec.embed_name in ("embed_tokens", "both"):
        yield TensorSpec(both + "paligemma.model.language_model.embed_tokens.weight", shape, scale)
    yield TensorSpec(both + "gemma_expert.lm_head.weight", (spec.vocab, spec.expert_width), 1 / sqrt(spec.expert_width))


def _vision(spec: CheckpointSpec, root: str) -> Iterator[TensorSpec]:
    width, patch = spec.vision_width, spec.patch_size
    tower = root + "vision_tower.vision_model."
    embeddings = tower + "embeddings."
    # Pixels lie within one, with a variance of about a third.
    yield TensorSpec(embeddings + "patch_embedding.weight", (width, 3, patch, patch), sqrt(3 / (3 * patch * patch)))
    yield TensorSpec(embeddings + "patch_embedding.bias", (width,), BIAS)
    yield TensorSpec(embeddings + "position_embedding.weight", (spec.patches, width), 0.5)
    for i in range(spec.vision_layers):
        layer = f"{tower}encoder.layers.{i}."
        for norm in ("layer_norm1", "layer_norm2"):
            yield from _layer_norm(layer + norm, width)
        for name, gain in (("q", 1.0), ("k", 1.0), ("v", 1.0), ("out", 0.5)):
            yield from _linear(f"{layer}self_attn.{name}_proj", width, width, gain)
        yield from _linear(layer + "mlp.fc1", spec.vision_mlp, width)
        yield from _linear(layer + "mlp.fc2", width, spec.vision_mlp, 0.5)
    yield from _layer_norm(tower + "post_layernorm", width)
    yield from _linear(root + "multi_modal_projector.linear", spec.prefix_width, width)


def _gemma(spec: CheckpointSpec, root: str, width: int, mlp: int, modulated: bool = False) -> Iterator[TensorSpec]:
    attention = spec.heads * spec.head_dim
    for i in range(spec.layers):
        layer = f"{root}layers.{i}."
        yield _matrix(layer + "self_attn.q_proj", attention, width)
        yield _matrix(layer + "self_attn.k_proj", spec.head_dim, width)
        yield _matrix(layer + "self_attn.v_proj", spec.head_dim, width)
        yield _matrix(layer + "self_attn.o_proj", width, attention, 0.5)
        yield _matrix(layer + "mlp.gate_proj", mlp, width)
        yield _matrix(layer + "mlp.up_proj", mlp, width)
        yield _matrix(layer + "mlp.down_proj", width, mlp, 0.5)
        yield from _rms_norm(layer + "input_layernorm", width, modulated)
        yield from _rms_norm(layer + "post_attention_layernorm", width, modulated)
    yield from _rms_norm(root + "norm", width, modulated)


def _rms_norm(name: str, width: int, modulated: bool) -> Iterator[TensorSpec]:
    if modulated:
        # Scale, shift and gate from the time. A bias of order one keeps branches from being shut off by their gates.
        yield _matrix(name + ".dense", 3 * width, width, 0.5)
        yield TensorSpec(name + ".dense.bias", (3 * width,), 0.5)
    else:
        yield TensorSpec(name + ".weight", (width,), NORM)


def _matrix(name: str, rows: int, columns: int, gain: float = 1.0) -> TensorSpec:
    return TensorSpec(name + ".weight", (rows, columns), gain / sqrt(columns))


def _linear(name: str, rows: int, columns: int, gain: float = 1.0) -> Iterator[TensorSpec]:
    yield _matrix(name, rows, columns, gain)
    yield TensorSpec(name + ".bias", (rows,), BIAS)


def _layer_norm(name: str, width: int) -> Iterator[TensorSpec]:
    yield TensorSpec(name + ".weight", (width,), NORM, offset=1.0)
    yield TensorSpec(name + ".bias", (width,), BIAS)
