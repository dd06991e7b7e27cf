"""time_conditioning: the flow times' embeddings in, one row per step out; run once per step count."""

from __future__ import annotations

import numpy as np

from ..config import PI05
from ..graph import Graph
from ..model import EXPERT, Model
from ..sources import Rows, Values


def row_width(model: Model) -> int:
    """Values of one row: for PI0 what the step adds to every action token, for PI0.5 scale, shift and gate of every norm."""
    width = model.dimensions.expert_width
    return 3 * width * len(model.expert_norms()) if model.config.policy == PI05 else width


def build(g: Graph, model: Model) -> None:
    embedding = g.input("time_embedding", "f32", ["steps", model.dimensions.expert_width])
    last = _modulations(g, model, embedding) if model.config.policy == PI05 else _action_time(g, model, embedding)
    g.named_output("Gemm", "time_table", last, "f32", ["steps", row_width(model)], transB=1)


def _action_time(g: Graph, model: Model, embedding: str) -> list[str]:
    """The time's half of action_time_mlp_in."""
    width = model.dimensions.expert_width
    weight = model.vector("action_time_mlp_in.weight")
    # The bias of action_in_proj goes through the action half of action_time_mlp_in, whatever the actions are.
    through = weight[:, :width].astype(np.float64) @ model.vector("action_in_proj.bias").astype(np.float64)
    bias = model.vector("action_time_mlp_in.bias") + through
    return [embedding, g.weight("time.weight", Values(weight[:, width:]), "f32"), g.weight("time.bias", Values(bias), "f32")]


def _modulations(g: Graph, model: Model, embedding: str) -> list[str]:
    """The time MLP, then the linear layer of every norm, all of them one product."""
    x = embedding
    for name in ("time_mlp_in", "time_mlp_out"):
        weights = [g.weight(f"{name}.{part}", Rows(model[f"{name}.{part}"]), "f32") for part in ("weight", "bias")]
        x = g.op("Gemm", name, [x, *weights], transB=1)
        x = g.op("Mul", f"{name}.silu", [x, g.op("Sigmoid", f"{name}.sigmoid", [x])])
    norms = model.expert_norms()
    factors = {norm: _factor(g, model, norm) for norm in norms}
    # A norm scales by one more than its layer says: added here, once, in place of in every step.
    one = np.repeat(np.float32([1, 0, 0]), model.dimensions.expert_width)
    biases = np.concatenate([(model.vector(norm + ".dense.bias") + one) * factor for norm, factor in factors.items()])
    weight = Rows(*((model[norm + ".dense.weight"], factor) for norm, factor in factors.items()))
    return [x, g.weight("norms.weight", weight, "f32"), g.weight("norms.bias", Values(biases), "f32")]


def _factor(g: Graph, model: Model, norm: str) -> np.ndarray | float:
    """What scale, shift and gate of a norm are multiplied by, where the products that read it have it smoothed."""
    place = norm.removeprefix(EXPERT).replace("layers.", "layer.")
    place = place.replace("input_layernorm", "attention").replace("post_attention_layernorm", "mlp")
    smoothing = g.forms.smoothing("denoise_step", f"{place}.norm.shifted")
    if isinstance(smoothing, float):
        return 1.0
    return np.concatenate([1 / smoothing, 1 / smoothing, np.ones(model.dimensions.expert_width, np.float32)])
