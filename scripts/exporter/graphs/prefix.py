"""prefix_prefill: embedded images and prompt in, the keys and values of every layer out."""

from __future__ import annotations

from ..blocks import GemmaStack, Rotary
from ..graph import Graph
from ..model import PREFIX, Model


def build(g: Graph, model: Model) -> None:
    d = model.dimensions
    stack = GemmaStack(model, PREFIX, d.prefix_width)
    embeds = g.input("prefix_embeds", g.compute, [1, "prefix", d.prefix_width])
    bias = g.prefix_bias()
    rotary = Rotary.inputs(g, "prefix", d.head_dim)
    rows = g.op("Reshape", "prefix_rows", [embeds, g.ints(-1, d.prefix_width)])
    x = g.cast("prefix_rows_f32", rows, "f32")
    for i in range(d.layers):
        with g.scope(f"layer.{i}.attention"):
            normed = stack.norm(g, "norm", x, stack.layer(i) + "input_layernorm")
            last = i == d.layers - 1
            if last:
                # Only keys and values leave the graph: the rest of the last layer would be computed for nobody.
                key, value = stack.keys_values(g, normed, i, rotary)
            else:
                query, key, value = stack.queries_keys_values(g, normed, i, rotary)
        for name, rows in (("key", key), ("value", value)):
            g.named_output(
                "Reshape", f"present.{i}.{name}", [rows, g.ints(1, -1, d.head_dim)], g.compute, [1, "prefix", d.head_dim],
            )
        if last:
            break
        with g.scope(f"layer.{i}.attention"):
            # One key head serves all query heads, so that heads are just more rows.
            scores = g.op("Gemm", "scores", [query, key, *bias], transB=1)
            weights = g.op("Softmax", "softmax", [g.cast("scores_f32", scores, "f32")], axis=-1)
            heads = g.op("Gemm", "weighted_values", [g.cast("softmax_cast", weights, "compute"), value])
            x = stack.attention_output(g, heads, x, i)
        with g.scope(f"layer.{i}.mlp"):
            x = stack.mlp(g, x, i)
