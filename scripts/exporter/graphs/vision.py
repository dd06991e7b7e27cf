"""vision_encoder: SigLIP and the projector, all present views in one batch."""

from __future__ import annotations

from ..forms.portable import Residual, linear
from ..graph import Graph
from ..model import PROJECTOR, VISION, Model
from ..sources import Rows


def build(g: Graph, model: Model) -> None:
    d = model.dimensions
    pixels = g.input("pixel_values", "f32", ["views", 3, d.image_height, d.image_width])
    with g.scope("embeddings"):
        # Tokens in reading order. Pixels that do not fill a patch at the right and the bottom are not seen.
        position = Rows(model[VISION + "embeddings.position_embedding.weight"])
        x = g.forms.patches(g, model, pixels, f"{VISION}embeddings.patch_embedding.", position)
    for i in range(d.vision_layers):
        layer = f"{VISION}encoder.layers.{i}."
        with g.scope(f"layer.{i}.attention"):
            _attention(g, model, layer, x)
        with g.scope(f"layer.{i}.mlp"):
            _mlp(g, model, layer, x)
    with g.scope("projector"):
        projected = linear(g, "linear", x.layer_norm(model, VISION + "post_layernorm"), *_weights(model, PROJECTOR))
    shape = [d.tokens_per_view, d.prefix_width]
    g.named_output("Reshape", "image_embeds", [projected, g.ints(-1, *shape)], g.compute, ["views", *shape])


def _attention(g: Graph, model: Model, layer: str, residual: Residual) -> None:
    d = model.dimensions
    x = residual.layer_norm(model, layer + "layer_norm1")
    scale = (d.vision_width // d.vision_heads) ** -0.5
    projections = [f"{layer}self_attn.{name}_proj." for name in ("q", "k", "v")]
    weight, bias = (
        Rows(*((model[name + part], scale if name == projections[0] else 1.0) for name in projections))
        for part in ("weight", "bias")
    )
    together = linear(g, "query_key_value", x, weight, bias)
    residual.add("output", g.forms.attend_view(g, d, together), *_weights(model, f"{layer}self_attn.out_proj"))


def _mlp(g: Graph, model: Model, layer: str, residual: Residual) -> None:
    x = residual.layer_norm(model, layer + "layer_norm2")
    hidden = g.forms.gelu_of(g, "up", x, *_weights(model, layer + "mlp.fc1"))
    residual.add("down", hidden, *_weights(model, layer + "mlp.fc2"))


def _weights(model: Model, tensor: str) -> tuple[Rows, Rows]:
    return Rows(model[tensor + ".weight"]), Rows(model[tensor + ".bias"])
