"""vision_encoder: SigLIP and the projector, all present views in one batch."""

from __future__ import annotations

from ..blocks import EPS, linear
from ..graph import Graph
from ..model import PROJECTOR, VISION, Model
from ..sources import Rows, Values


def build(g: Graph, model: Model) -> None:
    d = model.dimensions
    pixels = g.input("pixel_values", "f32", ["views", 3, d.image_height, d.image_width])
    with g.scope("embeddings"):
        x = _embed(g, model, pixels)
    for i in range(d.vision_layers):
        layer = f"{VISION}encoder.layers.{i}."
        with g.scope(f"layer.{i}.attention"):
            x = _attention(g, model, layer, x)
        with g.scope(f"layer.{i}.mlp"):
            x = _mlp(g, model, layer, x)
    with g.scope("projector"):
        x = _norm(g, model, VISION + "post_layernorm", x)
        x = _linear(g, model, "linear", PROJECTOR, x)
    shape = [d.tokens_per_view, d.prefix_width]
    g.named_output("Reshape", "image_embeds", [x, g.ints(-1, *shape)], g.compute, ["views", *shape])


def _embed(g: Graph, model: Model, pixels: str) -> str:
    """One token per patch, in reading order. Pixels that do not fill a patch at the right and the bottom are not seen."""
    d = model.dimensions
    patches = f"{VISION}embeddings.patch_embedding."
    # In f32 between pixels and residual stream, which are: it is little work, and this opset has no Conv in bf16.
    weights = [g.weight(f"patch.{part}", Rows(model[patches + part]), "f32") for part in ("weight", "bias")]
    size = [d.patch_size, d.patch_size]
    maps = g.op("Conv", "patch", [pixels, *weights], kernel_shape=size, strides=size)
    flat = g.op("Reshape", "patch_columns", [maps, g.ints(-1, d.vision_width, d.tokens_per_view)])
    tokens = g.op("Transpose", "patch_rows", [flat], perm=[0, 2, 1])
    position = g.weight("position", Rows(model[VISION + "embeddings.position_embedding.weight"]), "f32")
    tokens = g.op("Add", "tokens", [tokens, position])
    return g.op("Reshape", "rows", [tokens, g.ints(-1, d.vision_width)])


def _attention(g: Graph, model: Model, layer: str, residual: str) -> str:
    d = model.dimensions
    heads, head_dim = d.vision_heads, d.vision_width // d.vision_heads
    x = _norm(g, model, layer + "layer_norm1", residual)
    scale = head_dim**-0.5
    projections = [f"{layer}self_attn.{name}_proj." for name in ("q", "k", "v")]
    weight, bias = (
        Rows(*((model[name + part], scale if name == projections[0] else 1.0) for name in projections))
        for part in ("weight", "bias")
    )
    together = linear(g, "query_key_value", x, weight, bias)
    parts = g.split_op("Split", ["query", "key", "value"], [together], axis=1, num_outputs=3)
    split = g.ints(-1, d.tokens_per_view, heads, head_dim)
    # Views and heads become the batch of the products; keys come out transposed.
    query, key, value = (
        g.op("Transpose", f"{name}_heads", [g.op("Reshape", f"{name}_split", [part, split])], perm=perm)
        for name, part, perm in zip(("query", "key", "value"), parts, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]))
    )
    scores = g.cast("scores_f32", g.op("MatMul", "scores", [query, key]), "f32")
    weights = g.cast("softmax_cast", g.op("Softmax", "softmax", [scores], axis=-1), "compute")
    mixed = g.op("Transpose", "mixed", [g.op("MatMul", "weighted_values", [weights, value])], perm=[0, 2, 1, 3])
    rows = g.op("Reshape", "rows", [mixed, g.ints(-1, d.vision_width)])
    output = _linear(g, model, "output", f"{layer}self_attn.out_proj", rows)
    return g.op("Add", "residual", [residual, g.cast("output_f32", output, "f32")])


def _mlp(g: Graph, model: Model, layer: str, residual: str) -> str:
    x = _norm(g, model, layer + "layer_norm2", residual)
    hidden = g.op("Gelu", "gelu", [_linear(g, model, "up", layer + "mlp.fc1", x)], approximate="tanh")
    down = _linear(g, model, "down", layer + "mlp.fc2", hidden)
    return g.op("Add", "residual", [residual, g.cast("down_f32", down, "f32")])


def _norm(g: Graph, model: Model, tensor: str, x: str) -> str:
    """Layer norm in f32, its result in the compute dtype."""
    weights = [g.weight(f"norm.{part}", Values(model.vector(f"{tensor}.{part}")), "f32") for part in ("weight", "bias")]
    return g.cast("norm.cast", g.op("LayerNormalization", "norm", [x, *weights], axis=-1, epsilon=EPS), "compute")


def _linear(g: Graph, model: Model, name: str, tensor: str, x: str) -> str:
    return linear(g, name, x, Rows(model[tensor + ".weight"]), Rows(model[tensor + ".bias"]))
