"""time_conditioning: the flow times' embeddings in, one row per step out; run once per step count."""

from __future__ import annotations

import numpy as np

from ..blocks import linear
from ..graph import Graph
from ..model import Model
from ..sources import Values


def build(g: Graph, model: Model) -> None:
    width = model.dimensions.expert_width
    embedding = g.input("time_embedding", "f32", ["steps", width])
    weight = model.vector("action_time_mlp_in.weight")
    # The bias of action_in_proj goes through the action half of action_time_mlp_in, whatever the actions are.
    through = weight[:, :width].astype(np.float64) @ model.vector("action_in_proj.bias").astype(np.float64)
    bias = model.vector("action_time_mlp_in.bias") + through
    operands = [embedding, g.weight("time.weight", Values(weight[:, width:]), "f32"), g.weight("time.bias", Values(bias), "f32")]
    g.named_output("Gemm", "time_table", operands, "f32", ["steps", width], transB=1)
