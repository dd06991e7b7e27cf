"""The tensors of a PI0 or PI0.5 checkpoint by their place in the model, with every dimension taken from their shapes.

Each tensor of the file is either used by a graph or known to be unused. Anything else is an error: a changed model must be
noticed, not exported as the old one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import Callable

import numpy as np

from .config import PI0, PI05, PolicyConfig
from .errors import ExportError
from .sources import check_finite
from .statistics import BUFFERS
from .weights_file import READABLE, Tensor, WeightsFile

RELEASED_VISION_HEADS = 16

VISION = "paligemma_with_expert.paligemma.model.vision_tower.vision_model."
PROJECTOR = "paligemma_with_expert.paligemma.model.multi_modal_projector.linear"
PREFIX = "paligemma_with_expert.paligemma.model.language_model."
EXPERT = "paligemma_with_expert.gemma_expert.model."
LAYER_NORMS = ("input_layernorm", "post_attention_layernorm")
EMBED = PREFIX + "embed_tokens.weight"
LM_HEAD = "paligemma_with_expert.paligemma.lm_head.weight"
EXPERT_LM_HEAD = "paligemma_with_expert.gemma_expert.lm_head.weight"
# Names that older checkpoints have: at one time, each policy used the other's.
RENAMED = {
    PI0: {"time_mlp_in.": "action_time_mlp_in.", "time_mlp_out.": "action_time_mlp_out."},
    PI05: {"action_time_mlp_in.": "time_mlp_in.", "action_time_mlp_out.": "time_mlp_out."},
}

# What predicts words is saved with the rest and takes no part in predicting actions. Nor does PI0's state token in a PI0.5
# that began as a PI0.
KNOWN_UNUSED = {PI0: {EXPERT_LM_HEAD}, PI05: {EXPERT_LM_HEAD, "state_proj.weight", "state_proj.bias"}}
# Where transformers had the parts of PaliGemma when lerobot 0.3 saved them.
MOVED = {
    "paligemma_with_expert.paligemma.language_model.model.": PREFIX,
    "paligemma_with_expert.paligemma.language_model.lm_head.": LM_HEAD.removesuffix("weight"),
    "paligemma_with_expert.paligemma.vision_tower.": VISION.removesuffix("vision_model."),
    "paligemma_with_expert.paligemma.multi_modal_projector.": PROJECTOR.removesuffix("linear"),
}


@dataclass(frozen=True)
class Dimensions:
    """Every size of the model. Field names are those of the manifest's ``dimensions``."""

    image_height: int
    image_width: int
    patch_size: int
    tokens_per_view: int
    prefix_width: int
    prefix_mlp: int
    expert_width: int
    expert_mlp: int
    layers: int
    query_heads: int
    kv_heads: int
    head_dim: int
    vision_width: int
    vision_layers: int
    vision_heads: int
    vision_mlp: int
    vocab_size: int
    action_horizon: int


class Model:
    """The checkpoint's tensors, looked up by their name without the leading ``model.``."""

    def __init__(self, file: WeightsFile, config: PolicyConfig, vision_heads: int | None = None):
        self.file = file
        self.config = config
        self._tensors = self._named(file)
        self._used: set[str] = set()
        self.embedding = self._vocabulary()
        self.dimensions = self._measure(vision_heads)
        self._check_shapes()
        self._check_all_used()

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors.get(name)
        if tensor is None:
            raise self.file.error(f"{name}: missing tensor")
        self._used.add(name)
        return tensor

    def vector(self, name: str) -> np.ndarray:
        """A small tensor as a whole."""
        values = self[name].read()
        check_finite(self[name], values)
        return values

    def size(self, chosen: Callable[[str], bool]) -> int:
        """How many values the tensors of the chosen names have."""
        return sum(prod(tensor.shape) for name, tensor in self._tensors.items() if chosen(name))

    def expert_norms(self) -> list[str]:
        """The beginnings of the names of the expert's norms, in the order they are computed."""
        layers = (f"{EXPERT}layers.{i}.{norm}" for i in range(self.dimensions.layers) for norm in LAYER_NORMS)
        return [*layers, EXPERT + "norm"]

    def _named(self, file: WeightsFile) -> dict[str, Tensor]:
        named: dict[str, Tensor] = {}
        for key, tensor in file.tensors.items():
            name = plain_name(key)
            for old, new in RENAMED[self.config.policy].items():
                if name.startswith(old):
                    name = new + name.removeprefix(old)
            if name in named:
                raise file.error(f"{key}: the file also holds {named[name].name}, which is another name of the same tensor")
            if tensor.dtype not in READABLE:
                raise file.error(f"{key}: has dtype {tensor.dtype}; weights must be {' or '.join(READABLE)}")
            named[name] = tensor
        return named

    def _vocabulary(self) -> Tensor:
        """The embedding matrix. Loading a checkpoint, lerobot copies lm_head over it, and then any embed_tokens over that."""
        embed, head = self._tensors.get(EMBED), self._tensors.get(LM_HEAD)
        if embed is None and head is None:
            raise self.file.error(f"{EMBED}: missing tensor, and so is {LM_HEAD}, its other name")
        if embed is not None and head is not None and head.offset > embed.offset and not _same(embed, head):
            raise self.file.error(f"{head.name}: differs from {embed.name}, and it is not certain which of them lerobot would use")
        self._used.update((EMBED, LM_HEAD))
        return head if embed is None else embed

    def _measure(self, vision_heads: int | None) -> Dimensions:
        attention = PREFIX + "layers.0.self_attn."
        queries, prefix_width = self._matrix(attention + "q_proj.weight")
        head_dim, _ = self._matrix(attention + "k_proj.weight")  # there is one key head
        if queries % head_dim or head_dim % 2:
            raise self.file.error(f"{attention}q_proj.weight: {queries} rows do not divide into heads of {head_dim} rows, as k_proj has")
        patch = self[VISION + "embeddings.patch_embedding.weight"]
        if len(patch.shape) != 4 or patch.shape[1] != 3 or patch.shape[2] != patch.shape[3]:
            raise self.file.error(f"{patch.name}: has shape {list(patch.shape)}, expected [width, 3, patch, patch]")
        layers = self._layers(PREFIX)
        if layers != self._layers(EXPERT):
            raise self.file.error(f"{EXPERT}layers: {self._layers(EXPERT)} layers, but {layers} in {PREFIX}layers")
        height, width = self.config.image_size
        expert_gate = self._matrix(EXPERT + "layers.0.mlp.gate_proj.weight")
        return Dimensions(
            image_height=height,
            image_width=width,
            patch_size=patch.shape[2],
            tokens_per_view=(height // patch.shape[2]) * (width // patch.shape[2]),
            prefix_width=prefix_width,
            prefix_mlp=self._matrix(PREFIX + "layers.0.mlp.gate_proj.weight")[0],
            expert_width=expert_gate[1],
            expert_mlp=expert_gate[0],
            layers=layers,
            query_heads=queries // head_dim,
            kv_heads=1,
            head_dim=head_dim,
            vision_width=patch.shape[0],
            vision_layers=self._layers(VISION + "encoder."),
            vision_heads=self._vision_heads(patch.shape[0], vision_heads),
            vision_mlp=self._matrix(VISION + "encoder.layers.0.mlp.fc1.weight")[0],
            vocab_size=self.embedding.shape[0],
            action_horizon=self.config.chunk_size,
        )

    def _vision_heads(self, width: int, given: int | None) -> int:
        heads = RELEASED_VISION_HEADS if given is None else given
        if heads < 1 or width % heads:
            raise ExportError(
                f"--vision-heads: the vision encoder's width {width} does not divide into {heads} heads; "
                "the checkpoint does not record how many it has, so give the number it was made with"
            )
        return heads

    def _layers(self, root: str) -> int:
        pattern = re.compile(re.escape(root) + r"layers\.(\d+)\.")
        found = {int(match[1]) for match in map(pattern.match, self._tensors) if match}
        if not found:
            raise self.file.error(f"{root}layers.0: missing tensors")
        return max(found) + 1

    def _matrix(self, name: str) -> tuple[int, ...]:
        shape = self[name].shape
        if len(shape) != 2 or 0 in shape:
            raise self.file.error(f"{self[name].name}: has shape {list(shape)}, expected a matrix")
        return shape

    def _check_shapes(self) -> None:
        for name, shape in expected_shapes(self.dimensions, self.config).items():
            tensor = self[name]
            if tensor.shape != shape:
                why = f" for images of {list(self.config.image_size)}" if "position_embedding" in name else ""
                raise self.file.error(f"{tensor.name}: has shape {list(tensor.shape)}, expected {list(shape)}{why}")
        width = self.dimensions.prefix_width
        if self.embedding.shape != (self.dimensions.vocab_size, width):
            raise self.file.error(f"{self.embedding.name}: has shape {list(self.embedding.shape)}, expected rows of {width}")

    def _check_all_used(self) -> None:
        for name in sorted(self._tensors.keys() - self._used - KNOWN_UNUSED[self.config.policy]):
            kind = self.config.policy
            why = f"{kind} as it is exported here has no place for it"
            if BUFFERS.match(name) and self.config.old:
                continue
            if BUFFERS.match(name):
                why = "lerobot 0.3 and older kept statistics among the weights, later ones in the policy_*.json's files; remove one of the two"
            raise self.file.error(f"{self._tensors[name].name}: unknown tensor; {why}")


def plain_name(key: str) -> str:
    """A tensor's name in the model, without what lerobot and torch.compile put before it, as today's transformers has it."""
    name = key.replace("_orig_mod.", "").removeprefix("model.")
    return next((new + name.removeprefix(old) for old, new in MOVED.items() if name.startswith(old)), name)


def expected_shapes(d: Dimensions, config: PolicyConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor but the vocabulary matrices."""
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, rows: int, columns: int) -> None:
        shapes[name + ".weight"] = (rows, columns)
        shapes[name + ".bias"] = (rows,)

    def layer_norm(name: str, width: int) -> None:
        shapes[name + ".weight"] = shapes[name + ".bias"] = (width,)

    def rms_norm(root: str, name: str, width: int) -> None:
        if root == EXPERT and config.policy == PI05:
            # Scale, shift and gate are made from the time.
            linear(name + ".dense", 3 * width, width)
        else:
            shapes[name + ".weight"] = (width,)

    v = d.vision_width
    shapes[VISION + "embeddings.patch_embedding.weight"] = (v, 3, d.patch_size, d.patch_size)
    shapes[VISION + "embeddings.patch_embedding.bias"] = (v,)
    shapes[VISION + "embeddings.position_embedding.weight"] = (d.tokens_per_view, v)
    for i in range(d.vision_layers):
        layer = f"{VISION}encoder.layers.{i}."
        for name in ("q", "k", "v", "out"):
            linear(f"{layer}self_attn.{name}_proj", v, v)
        linear(layer + "mlp.fc1", d.vision_mlp, v)
        linear(layer + "mlp.fc2", v, d.vision_mlp)
        layer_norm(layer + "layer_norm1", v)
        layer_norm(layer + "layer_norm2", v)
    layer_norm(VISION + "post_layernorm", v)
    linear(PROJECTOR, d.prefix_width, v)

    attention = d.query_heads * d.head_dim
    for root, width, mlp in ((PREFIX, d.prefix_width, d.prefix_mlp), (EXPERT, d.expert_width, d.expert_mlp)):
        for i in range(d.layers):
            layer = f"{root}layers.{i}."
            shapes[layer + "self_attn.q_proj.weight"] = (attention, width)
            shapes[layer + "self_attn.k_proj.weight"] = shapes[layer + "self_attn.v_proj.weight"] = (d.head_dim, width)
            shapes[layer + "self_attn.o_proj.weight"] = (width, attention)
            shapes[layer + "mlp.gate_proj.weight"] = shapes[layer + "mlp.up_proj.weight"] = (mlp, width)
            shapes[layer + "mlp.down_proj.weight"] = (width, mlp)
            for norm in LAYER_NORMS:
                rms_norm(root, layer + norm, width)
        rms_norm(root, root + "norm", width)

    e = d.expert_width
    linear("action_in_proj", e, config.max_action_dim)
    linear("action_out_proj", config.max_action_dim, e)
    if config.policy == PI05:
        linear("time_mlp_in", e, e)
        linear("time_mlp_out", e, e)
    else:
        linear("state_proj", e, config.max_state_dim)
        linear("action_time_mlp_in", e, 2 * e)
        linear("action_time_mlp_out", e, e)
    return shapes


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and all((a == b).all() for a, b in zip(one.blocks(), other.blocks()))
