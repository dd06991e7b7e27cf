"""The parts the graphs are made of.

Activations are matrices: one row per token, and per token and head inside attention. Batch is always one, so that every product
is a plain Gemm, weights stay as the checkpoint has them (one row per output), and no transpose is ever computed. The residual
stream, norms, softmax and rotary embedding are in f32; products are in the graph's compute dtype.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .graph import Graph
from .model import Dimensions, Model
from .sources import Rows, Source, Values

EPS = 1e-6
TO_END = np.iinfo(np.int64).max


def linear(g: Graph, name: str, x: str, weight: Source, bias: Source | None = None) -> str:
    """``x · weightᵀ + bias``; operands and result in the compute dtype."""
    with g.scope(name):
        operands = [x, g.weight("weight", weight)]
        if bias is not None:
            operands.append(g.weight("bias", bias))
    return g.op("Gemm", name, operands, transB=1)


@dataclass(frozen=True)
class Modulation:
    """What PI0.5 makes of the time for one norm: values [1, width], or [rows, width] where rows have times of their own. The
    scale has its one added already."""

    width: int
    scale: str
    shift: str
    gate: str


def rms_norm(g: Graph, name: str, x: str, scale: np.ndarray | Modulation) -> str:
    """Gemma's norm, which scales by 1 + weight; or PI0.5's, which scales and shifts by values of the step. f32 to f32.

    Written as the chain of nodes that ONNX Runtime recognises and replaces by its one fused kernel.
    """
    with g.scope(name):
        square = g.op("Pow", "square", [x, g.scalar(2.0)])
        mean = g.op("ReduceMean", "mean", [square, g.ints(-1)], keepdims=1)
        root = g.op("Sqrt", "root", [g.op("Add", "mean_eps", [mean, g.scalar(EPS)])])
        unit = g.op("Div", "unit", [x, root])
        if not isinstance(scale, Modulation):
            return g.op("Mul", "scaled", [unit, g.weight("scale", Values(1 + scale), "f32")])
        # Multiplying by a constant one changes no bit and makes the chain the one that is recognised.
        unit = g.op("Mul", "one", [unit, g.weight("ones", Values(np.ones(scale.width)), "f32")])
        return g.op("Add", "shifted", [g.op("Mul", "scaled", [unit, scale.scale]), scale.shift])


@dataclass(frozen=True)
class Rotary:
    """Rotary tables for the rows of one graph, one value per element of a head."""

    cos: str
    sin: str

    @classmethod
    def inputs(cls, g: Graph, rows: int | str, head_dim: int) -> Rotary:
        """Declares the inputs ``rope_cos`` and ``rope_sin``, which hold one value per rotated pair, and spreads them."""
        shape = [rows, head_dim // 2]
        cos, sin = g.input("rope_cos", "f32", shape), g.input("rope_sin", "f32", shape)
        whole = g.ints(-1, 1, head_dim)
        with g.scope("rope"):
            minus = g.op("Neg", "minus_sin", [sin])
            return cls(
                g.op("Reshape", "cos", [g.op("Concat", "cos_pairs", [cos, cos], axis=1), whole]),
                g.op("Reshape", "sin", [g.op("Concat", "sin_pairs", [minus, sin], axis=1), whole]),
            )

    def rotate(self, g: Graph, x: str) -> str:
        """Rotates ``x`` [rows, heads, head_dim]: the first half of a head pairs with its second half."""
        with g.scope("rope"):
            first, second = g.split_op("Split", ["first", "second"], [x], axis=2, num_outputs=2)
            swapped = g.op("Concat", "swapped", [second, first], axis=2)
            turned = g.op("Mul", "turned", [swapped, self.sin])
            return g.op("Add", "rotated", [g.op("Mul", "kept", [x, self.cos]), turned])


@dataclass(frozen=True)
class GemmaStack:
    """One of the two Gemma models: where its tensors are, how wide it is, and its norms' modulation if time has any part in them."""

    model: Model
    root: str
    width: int
    modulation: dict[str, Modulation] | None = None

    @property
    def dimensions(self) -> Dimensions:
        return self.model.dimensions

    def layer(self, index: int) -> str:
        return f"{self.root}layers.{index}."

    def norm(self, g: Graph, name: str, x: str, tensor: str) -> str:
        """The norm before a product, and its result in the compute dtype."""
        return g.cast(f"{name}.cast", rms_norm(g, name, x, self.scale(tensor)), "compute")

    def scale(self, norm: str) -> np.ndarray | Modulation:
        return self.model.vector(norm + ".weight") if self.modulation is None else self.modulation[norm]

    def _add(self, g: Graph, residual: str, branch: str, norm: str) -> str:
        """Adds what a branch came to, through the gate of the norm it began with."""
        if self.modulation is not None:
            branch = g.op("Mul", "gated", [branch, self.modulation[norm].gate])
        return g.op("Add", "residual", [residual, branch])

    def queries_keys_values(self, g: Graph, x: str, index: int, rotary: Rotary) -> tuple[str, str, str]:
        """Queries [rows · heads, head_dim], scaled and rotated; keys [rows, head_dim], rotated; values [rows, head_dim]."""
        d, attention = self.dimensions, self.layer(index) + "self_attn."
        scaled = (self.model[attention + "q_proj.weight"], d.head_dim**-0.5)
        weights = Rows(scaled, self.model[attention + "k_proj.weight"], self.model[attention + "v_proj.weight"])
        together = linear(g, "query_key_value", x, weights)
        rotating = (d.query_heads + 1) * d.head_dim
        query_key, value = g.split_op("Split", ["query_key", "value"], [together, g.ints(rotating, d.head_dim)], axis=1)
        heads = g.op("Reshape", "query_key_heads", [query_key, g.ints(-1, d.query_heads + 1, d.head_dim)])
        rotated = rotary.rotate(g, g.cast("query_key_f32", heads, "f32"))
        rotated = g.cast("rotated_cast", rotated, "compute")
        query, key = g.split_op("Split", ["query", "key"], [rotated, g.ints(d.query_heads, 1)], axis=1)
        row = g.ints(-1, d.head_dim)
        return g.op("Reshape", "query_rows", [query, row]), g.op("Reshape", "key_rows", [key, row]), value

    def keys_values(self, g: Graph, x: str, index: int, rotary: Rotary) -> tuple[str, str]:
        """Keys and values alone, for the layer of which nothing else is used."""
        d, attention = self.dimensions, self.layer(index) + "self_attn."
        together = linear(g, "key_value", x, Rows(self.model[attention + "k_proj.weight"], self.model[attention + "v_proj.weight"]))
        key, value = g.split_op("Split", ["key", "value"], [together], axis=1, num_outputs=2)
        heads = g.op("Reshape", "key_heads", [key, g.ints(-1, 1, d.head_dim)])
        rotated = g.cast("rotated_cast", rotary.rotate(g, g.cast("key_f32", heads, "f32")), "compute")
        return g.op("Reshape", "key_rows", [rotated, g.ints(-1, d.head_dim)]), value

    def attention_output(self, g: Graph, heads: str, residual: str, index: int) -> str:
        """Puts the heads of each token side by side, projects them, and adds them to the residual stream."""
        d = self.dimensions
        together = g.op("Reshape", "heads", [heads, g.ints(-1, d.query_heads * d.head_dim)])
        projected = linear(g, "output", together, Rows(self.model[self.layer(index) + "self_attn.o_proj.weight"]))
        return self._add(g, residual, g.cast("output_f32", projected, "f32"), self.layer(index) + "input_layernorm")

    def mlp(self, g: Graph, residual: str, index: int) -> str:
        """The gated MLP with its norm, added to the residual stream."""
        layer = self.layer(index)
        x = self.norm(g, "norm", residual, layer + "post_attention_layernorm")
        # Two products: splitting one product in two would copy the widest activation of the model.
        gate, up = (linear(g, name, x, Rows(self.model[f"{layer}mlp.{name}_proj.weight"])) for name in ("gate", "up"))
        hidden = g.op("Mul", "hidden", [g.op("Gelu", "gelu", [gate], approximate="tanh"), up])
        down = linear(g, "down", hidden, Rows(self.model[layer + "mlp.down_proj.weight"]))
        return self._add(g, residual, g.cast("down_f32", down, "f32"), layer + "post_attention_layernorm")
