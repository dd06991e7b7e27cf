"""Operators of ONNX alone, in forms that every provider takes.

Activations are matrices: one row per token, and per token and head inside attention, so that every product is a plain Gemm. The
residual stream, norms, softmax and rotary embedding are in f32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..sources import Rows, Source, Values

if TYPE_CHECKING:
    from ..graph import Graph
    from ..model import Dimensions, Model

EPS = 1e-6
TO_END = np.iinfo(np.int64).max
# Added to the scores of what a token must not see. Its exponential is zero, and it is a number in f16 too.
MASKED = -30000.0


def linear(g: Graph, name: str, x: str, weight: Source, bias: Source | None = None) -> str:
    """``x · weightᵀ + bias``; operands and result in the compute dtype."""
    return g.forms.product(g, name, x, weight, bias)


@dataclass(frozen=True)
class Modulation:
    """What PI0.5 makes of the time for one norm: values [1, width], or [rows, width] where rows have times of their own. The
    scale has its one added already."""

    width: int
    scale: str
    shift: str
    gate: str
    rows: bool = False


class Residual:
    """The residual stream of one graph, [rows, width] in f32: what branches are added to, and norms are taken of."""

    def __init__(self, g: Graph, rows: str):
        self._g, self.rows = g, rows

    def add(self, name: str, x: str, weight: Source, bias: Source | None = None, gate: str | None = None) -> None:
        """Adds a branch's last product, ``x · weightᵀ + bias``, times ``gate``."""
        g = self._g
        branch = g.cast(f"{name}_f32", linear(g, name, x, weight, bias), "f32")
        if gate is not None:
            branch = g.op("Mul", "gated", [branch, gate])
        self.rows = g.op("Add", "residual", [self.rows, branch])

    def rms_norm(self, name: str, scale: np.ndarray | Modulation, dtype: str = "compute") -> str:
        """Gemma's norm, which scales by 1 + weight; or PI0.5's, which scales and shifts by values of the step.

        Written as the chain of nodes that ONNX Runtime recognises and replaces by its one fused kernel.
        """
        g = self._g
        with g.scope(name):
            square = g.op("Pow", "square", [self.rows, g.scalar(2.0)])
            mean = g.op("ReduceMean", "mean", [square, g.ints(-1)], keepdims=1)
            root = g.op("Sqrt", "root", [g.op("Add", "mean_eps", [mean, g.scalar(EPS)])])
            unit = g.op("Div", "unit", [self.rows, root])
            if isinstance(scale, Modulation):
                # Multiplying by a constant one changes no bit and makes the chain the one that is recognised.
                unit = g.op("Mul", "one", [unit, g.weight("ones", Values(np.ones(scale.width)), "f32")])
                normed = g.op("Add", "shifted", [g.op("Mul", "scaled", [unit, scale.scale]), scale.shift])
            else:
                scale = (1 + scale) / g.forms.smoothing(g.name, g.full("scaled"))
                normed = g.op("Mul", "scaled", [unit, g.weight("scale", Values(scale), "f32")])
        return normed if dtype == "f32" else g.cast(f"{name}.cast", normed, dtype)

    def layer_norm(self, model: Model, tensor: str) -> str:
        """The vision encoder's norm, its result in the compute dtype."""
        g = self._g
        smoothing = g.forms.smoothing(g.name, g.full("norm"))
        weights = [g.weight(f"norm.{part}", Values(model.vector(f"{tensor}.{part}") / smoothing), "f32") for part in ("weight", "bias")]
        return g.cast("norm.cast", g.op("LayerNormalization", "norm", [self.rows, *weights], axis=-1, epsilon=EPS), "compute")

    def actions(self, skipped: int) -> Residual:
        """The stream without its first ``skipped`` rows."""
        g = self._g
        return Residual(g, g.op("Slice", "action_rows", [self.rows, g.ints(skipped), g.ints(TO_END), g.ints(0)])) if skipped else self


@dataclass(frozen=True)
class Rotary:
    """Rotary tables for the rows of one graph, one value per element of a head."""

    cos: str
    sin: str
    axis: ClassVar[int] = 2  # of a head's values

    def rotate(self, g: Graph, x: str) -> str:
        """Rotates ``x`` [rows, heads, head_dim]: the first half of a head pairs with its second half."""
        with g.scope("rope"):
            first, second = g.split_op("Split", ["first", "second"], [x], axis=self.axis, num_outputs=2)
            swapped = g.op("Concat", "swapped", [second, first], axis=self.axis)
            turned = g.op("Mul", "turned", [swapped, self.sin])
            return g.op("Add", "rotated", [g.op("Mul", "kept", [x, self.cos]), turned])


class Portable:
    """The forms of the targets that name no other."""

    domains: dict[str, int] = {}
    # The least version that has the operators, where the runtime takes older ones.
    onnxruntime: str | None = None
    # PI0's state token is a row of every denoise step.
    state_in_prefill = False

    def recorded(self, policy: str) -> dict:
        """What the manifest says of the forms where they are not those of every provider."""
        return {"onnxruntime": self.onnxruntime} if self.onnxruntime else {}

    def product(self, g: Graph, name: str, x: str, weight: Source, bias: Source | None = None) -> str:
        """``x · weightᵀ + bias``."""
        with g.scope(name):
            operands = [x, g.weight("weight", weight)]
            if bias is not None:
                operands.append(g.weight("bias", bias))
        return g.op("Gemm", name, operands, transB=1)

    def smoothing(self, graph: str, value: str) -> np.ndarray | float:
        """What the columns of ``value``, which products read, are divided by, whose weights are multiplied by it."""
        return 1.0

    def opset(self, padded: bool) -> int:
        """The operator set of a graph; ``padded``: its prefix may hold rows that are not to be seen."""
        return 20

    def residual(self, g: Graph, rows: str) -> Residual:
        """The residual stream that begins with ``rows`` in f32."""
        return Residual(g, rows)

    def embedded(self, g: Graph, rows: str) -> Residual:
        """The residual stream that begins with ``rows`` in the compute dtype."""
        return Residual(g, g.cast("prefix_rows_f32", rows, "f32"))

    def spread(self, g: Graph, row: str, width: int, names: list[str]) -> list[str]:
        """The parts of ``width`` that a row [1, parts · width] of the time table holds."""
        return g.split_op("Split", names, [row], axis=1, num_outputs=len(names))

    def padding(self, g: Graph) -> list[str]:
        """The input that tells which rows only fill a padded prefix up; none if it is not padded."""
        return [g.input("prefix_bias", g.compute, [1, "prefix"])] if g.padded_prefix else []

    def rotary(self, g: Graph, rows: int | str, head_dim: int) -> Rotary:
        """Declares the inputs ``rope_cos`` and ``rope_sin``, which hold one value per rotated pair, and spreads them."""
        shape = [rows, head_dim // 2]
        cos, sin = g.input("rope_cos", "f32", shape), g.input("rope_sin", "f32", shape)
        whole = g.ints(-1, 1, head_dim)
        with g.scope("rope"):
            minus = g.op("Neg", "minus_sin", [sin])
            return Rotary(
                g.op("Reshape", "cos", [g.op("Concat", "cos_pairs", [cos, cos], axis=1), whole]),
                g.op("Reshape", "sin", [g.op("Concat", "sin_pairs", [minus, sin], axis=1), whole]),
            )

    # -- attention ------------------------------------------------------------------------------------------------------

    def project(self, g: Graph, d: Dimensions, x: str, weights: Source, rotary: Rotary, cache: str | None = None) -> tuple[str, str, str]:
        """Queries [rows · heads, head_dim] and keys [rows, head_dim], rotated; values [rows, head_dim]. ``cache``: the beginning of
        the names of the graph's outputs that keys and values become."""
        together = linear(g, "query_key_value", x, weights)
        rotating = (d.query_heads + 1) * d.head_dim
        query_key, value = g.split_op("Split", ["query_key", "value"], [together, g.ints(rotating, d.head_dim)], axis=1)
        heads = g.op("Reshape", "query_key_heads", [query_key, g.ints(-1, d.query_heads + 1, d.head_dim)])
        rotated = rotary.rotate(g, g.cast("query_key_f32", heads, "f32"))
        rotated = g.cast("rotated_cast", rotated, "compute")
        query, key = g.split_op("Split", ["query", "key"], [rotated, g.ints(d.query_heads, 1)], axis=1)
        row = g.ints(-1, d.head_dim)
        return g.op("Reshape", "query_rows", [query, row]), g.op("Reshape", "key_rows", [key, row]), value

    def project_keys(self, g: Graph, d: Dimensions, x: str, weights: Source, rotary: Rotary, cache: str | None = None) -> tuple[str, str]:
        """Keys and values alone, for the layer of which nothing else is used."""
        together = linear(g, "key_value", x, weights)
        key, value = g.split_op("Split", ["key", "value"], [together], axis=1, num_outputs=2)
        heads = g.op("Reshape", "key_heads", [key, g.ints(-1, 1, d.head_dim)])
        rotated = g.cast("rotated_cast", rotary.rotate(g, g.cast("key_f32", heads, "f32")), "compute")
        return g.op("Reshape", "key_rows", [rotated, g.ints(-1, d.head_dim)]), value

    def cache(self, g: Graph, d: Dimensions, layer: int, key: str, value: str) -> None:
        """Makes the keys and values of a layer outputs of the graph."""
        for name, rows in (("key", key), ("value", value)):
            shape = [1, "prefix", d.head_dim]
            g.named_output("Reshape", f"present.{layer}.{name}", [rows, g.ints(1, -1, d.head_dim)], g.compute, shape)

    def attend(self, g: Graph, d: Dimensions, query: str, key: str, value: str, padding: list[str]) -> str:
        """What the heads of the prefix see. One key head serves all query heads, so that heads are just more rows."""
        scores = g.op("Gemm", "scores", [query, key, *padding], transB=1)
        weights = g.op("Softmax", "softmax", [g.cast("scores_f32", scores, "f32")], axis=-1)
        return g.op("Gemm", "weighted_values", [g.cast("softmax_cast", weights, "compute"), value])

    def suffix(self, g: Graph, d: Dimensions, suffix: int, state: bool, padding: list[str]) -> SuffixAttention:
        """Attention of a denoise step of ``suffix`` rows; ``state``: there is a state token, here the first of them."""
        return SuffixAttention(g, d, suffix, state, padding)

    # -- vision ---------------------------------------------------------------------------------------------------------

    def patches(self, g: Graph, model: Model, pixels: str, tensor: str, position: Source) -> Residual:
        """The residual stream that begins with one token per patch, its position added. In f32 between pixels and residual stream, which are:
        it is little work, and this opset has no Conv in bf16."""
        d = model.dimensions
        weights = [g.weight(f"patch.{part}", Rows(model[tensor + part]), "f32") for part in ("weight", "bias")]
        size = [d.patch_size, d.patch_size]
        maps = g.op("Conv", "patch", [pixels, *weights], kernel_shape=size, strides=size)
        flat = g.op("Reshape", "patch_columns", [maps, g.ints(-1, d.vision_width, d.tokens_per_view)])
        tokens = g.op("Transpose", "patch_rows", [flat], perm=[0, 2, 1])
        tokens = g.op("Add", "tokens", [tokens, g.weight("position", position, "f32")])
        return Residual(g, g.op("Reshape", "rows", [tokens, g.ints(-1, d.vision_width)]))

    def attend_view(self, g: Graph, d: Dimensions, together: str) -> str:
        """Attention of every view's tokens among themselves: queries, keys and values [rows, 3 · width] in, [rows, width] out."""
        parts = g.split_op("Split", ["query", "key", "value"], [together], axis=1, num_outputs=3)
        split = g.ints(-1, d.tokens_per_view, d.vision_heads, d.vision_width // d.vision_heads)
        # Views and heads become the batch of the products; keys come out transposed.
        query, key, value = (
            g.op("Transpose", f"{name}_heads", [g.op("Reshape", f"{name}_split", [part, split])], perm=perm)
            for name, part, perm in zip(("query", "key", "value"), parts, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]))
        )
        scores = g.cast("scores_f32", g.op("MatMul", "scores", [query, key]), "f32")
        weights = g.cast("softmax_cast", g.op("Softmax", "softmax", [scores], axis=-1), "compute")
        mixed = g.op("Transpose", "mixed", [g.op("MatMul", "weighted_values", [weights, value])], perm=[0, 2, 1, 3])
        return g.op("Reshape", "rows", [mixed, g.ints(-1, d.vision_width)])

    def gelu_of(self, g: Graph, name: str, x: str, weight: Source, bias: Source) -> str:
        """``gelu(x · weightᵀ + bias)``."""
        return g.op("Gelu", "gelu", [linear(g, name, x, weight, bias)], approximate="tanh")


class SuffixAttention:
    """Attention over suffix and prefix with heads as rows. Their scores are joined, the prefix's keys and values never copied."""

    def __init__(self, g: Graph, d: Dimensions, suffix: int, state: bool, padding: list[str]):
        self._g, self._head_dim, self._suffix, self._bias = g, d.head_dim, suffix, padding
        self._mask = [g.weight("suffix.mask", Values(_suffix_mask(suffix, d.query_heads)))] if state else []

    def __call__(self, query: str, key: str, value: str, past: list[str]) -> str:
        g, suffix = self._g, self._suffix
        past_key, past_value = (
            g.op("Reshape", f"past_{name}", [cached, g.ints(-1, self._head_dim)]) for name, cached in zip(("key", "value"), past)
        )
        own = g.op("Gemm", "scores_suffix", [query, key, *self._mask], transB=1)
        seen = g.op("Gemm", "scores_prefix", [query, past_key, *self._bias], transB=1)
        # The suffix comes first: its length is fixed, so that both parts begin at fixed places.
        scores = g.cast("scores_f32", g.op("Concat", "scores", [own, seen], axis=1), "f32")
        weights = g.cast("softmax_cast", g.op("Softmax", "softmax", [scores], axis=-1), "compute")
        on_own = g.op("Slice", "softmax_suffix", [weights, g.ints(0), g.ints(suffix), g.ints(1)])
        on_seen = g.op("Slice", "softmax_prefix", [weights, g.ints(suffix), g.ints(TO_END), g.ints(1)])
        return g.op("Gemm", "weighted_values", [on_seen, past_value, g.op("Gemm", "weighted_suffix", [on_own, value])])


def _suffix_mask(suffix: int, heads: int) -> np.ndarray:
    """What the suffix sees of itself: the state token, which comes first, only itself; actions everything."""
    mask = np.zeros((suffix, heads, suffix), np.float32)
    mask[0, :, 1:] = MASKED
    return mask.reshape(suffix * heads, suffix)
