"""Operators that ONNX Runtime's CUDA provider runs as one kernel each, and that read nothing of the host's while they run.

Attention has no mask, so that the provider takes Flash Attention in 16 bits. PI0's state token would need one: it sees the prefix and
itself alone. It does not depend on the step either, so that the prefill computes it, as one more row of keys and values before those
of the prefix. It is ONNX Runtime's own operator, with heads as rows, where it is to be one that Jetson has; and else that of ONNX,
which needs no cuDNN, has bf16, and takes the first of the keys alone, for a prefix that is padded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Sequence

import numpy as np
import onnx

from ..config import PI0
from ..sources import Rows, Source, Values
from .portable import EPS, Modulation, Portable, linear

if TYPE_CHECKING:
    from ..graph import Graph
    from ..model import Dimensions, Model

CONTRIB = "com.microsoft"
# Of more outputs than these, the provider fetches the addresses from the host.
OUTPUTS = 32
# ONNX Runtime's norm, which it has in the default domain; ONNX's own is newer. Registered for ONNX's checker.
RMS_NORM = "SimplifiedLayerNormalization"
onnx.defs.register_schema(onnx.defs.OpSchema(
    RMS_NORM, "", 1,
    type_constraints=[("T", ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"], "")],
    inputs=[onnx.defs.OpSchema.FormalParameter(name, "T") for name in ("X", "scale")],
    outputs=[onnx.defs.OpSchema.FormalParameter("Y", "T")],
    attributes=[onnx.defs.OpSchema.Attribute(name, kind) for name, kind in
                (("axis", onnx.defs.OpSchema.AttrType.INT), ("epsilon", onnx.defs.OpSchema.AttrType.FLOAT))],
))


class FusedResidual:
    """The residual stream [rows, width] in the compute dtype. A branch is added by the norm that follows it, in one kernel."""

    dtype = "compute"

    def __init__(self, g: Graph, rows: str):
        self._g, self._rows = g, rows
        self._branch: list[str] | None = None  # what is still to be added: the rows, and a bias

    def add(self, name: str, x: str, weight: Source, bias: Source | None = None, gate: str | None = None) -> None:
        g = self._g
        branch = linear(g, name, x, weight)
        if gate is not None:
            branch = g.op("Mul", "gated", [branch, gate])
        with g.scope(name):
            self._branch = [branch, "" if bias is None else g.weight("bias", bias)]

    def rms_norm(self, name: str, scale: np.ndarray | Modulation, dtype: str = "compute") -> str:
        g = self._g
        modulated = isinstance(scale, Modulation)
        with g.scope(name):
            if not modulated:
                weight = g.weight("scale", Values(1 + scale), self.dtype)
            elif scale.rows:
                weight = g.weight("ones", Values(np.ones(scale.width)))
            else:
                weight = g.op("Reshape", "scale", [scale.scale, g.ints(scale.width)])
            normed = self._normed("SkipSimplifiedLayerNormalization", RMS_NORM, [weight])
            if modulated:
                normed = g.op("Mul", "scaled", [normed, scale.scale]) if scale.rows else normed
                normed = g.op("Add", "shifted", [normed, scale.shift])
        return normed if dtype == self.dtype else g.cast(f"{name}.cast", normed, dtype)

    def layer_norm(self, model: Model, tensor: str) -> str:
        g = self._g
        weights = [g.weight(f"norm.{part}", Values(model.vector(f"{tensor}.{part}"))) for part in ("weight", "bias")]
        with g.scope("norm"):
            return self._normed("SkipLayerNormalization", "LayerNormalization", weights)

    def actions(self, skipped: int) -> FusedResidual:
        assert not skipped, "the state token is the prefill's"
        return self

    def _normed(self, with_branch: str, alone: str, weights: list[str]) -> str:
        g = self._g
        if self._branch is None:
            return g.op(alone, "normed", [self._rows, *weights], axis=-1, epsilon=EPS)
        branch, bias = self._branch
        inputs = [self._rows, branch, *weights] + [bias] * bool(bias)
        names = ["normed", "", "", "residual"]
        normed, _, _, self._rows = g.split_op(with_branch, names, inputs, domain=CONTRIB, epsilon=EPS)
        self._branch = None
        return normed


class WideResidual(FusedResidual):
    """The residual stream in f32, for half precision where its values outgrow that."""

    dtype = "f32"

    def add(self, name: str, x: str, weight: Source, bias: Source | None = None, gate: str | None = None) -> None:
        super().add(name, x, weight, bias, gate)
        g = self._g
        branch, bias = self._branch
        assert not bias
        self._rows = g.op("Add", "residual", [self._rows, g.cast(f"{name}_f32", branch, "f32")])
        self._branch = None


@dataclass(frozen=True)
class PairTables:
    """Rotary tables for the rows of one graph, [rows, head_dim / 2] in the compute dtype."""

    cos: str
    sin: str

    @classmethod
    def inputs(cls, g: Graph, prefix: str, rows: int | str, head_dim: int) -> PairTables:
        names = [f"{prefix}rope_{part}" for part in ("cos", "sin")]
        return cls(*(g.cast(f"{name}.cast", g.input(name, "f32", [rows, head_dim // 2]), "compute") for name in names))

    def rotate(self, g: Graph, name: str, x: str, heads: int) -> str:
        """Rotates ``x`` [1, rows, heads · head_dim]; ``name`` is the result's in full."""
        first = g.ints(0)  # the row of the tables for the first token
        return g.node("RotaryEmbedding", [name], [x, first, self.cos, self.sin], domain=CONTRIB, num_heads=heads)[0]


class Fused(Portable):
    """The forms of the target ``cuda``."""

    domains = {CONTRIB: 1}
    onnxruntime = "1.31"
    state_in_prefill = True

    def recorded(self, policy: str) -> dict:
        state = {"state_in_prefill": True} if policy == PI0 else {}
        return {**super().recorded(policy), **state}

    def opset(self, padded: bool) -> int:
        return 24 if padded else 23

    def residual(self, g: Graph, rows: str) -> FusedResidual:
        return FusedResidual(g, g.cast("rows_cast", rows, "compute"))

    def embedded(self, g: Graph, rows: str) -> FusedResidual:
        if g.compute != "f16":
            return FusedResidual(g, rows)
        return WideResidual(g, g.cast("prefix_rows_f32", rows, "f32"))

    def spread(self, g: Graph, row: str, width: int, names: list[str]) -> list[str]:
        return self._spread(g, g.cast("row_cast", row, "compute"), width, names)

    def _spread(self, g: Graph, row: str, width: int, names: list[str]) -> list[str]:
        if len(names) <= OUTPUTS:
            return super().spread(g, row, width, names)
        # Three parts may have any size: of so few the provider passes the addresses along.
        ends = [0, OUTPUTS, 2 * OUTPUTS] if len(names) > 2 * OUTPUTS else [0, len(names) // 3, 2 * len(names) // 3]
        parts = [names[start:end] for start, end in zip(ends, [*ends[1:], None])]
        sizes = g.ints(*(len(part) * width for part in parts))
        values = g.split_op("Split", [f"{part[0]}.and_{len(part) - 1}" for part in parts], [row, sizes], axis=1)
        return [name for value, part in zip(values, parts) for name in self._spread(g, value, width, part)]

    def padding(self, g: Graph) -> list[str]:
        return [g.input("valid_rows", "i64", [1])] if g.padded_prefix else []

    def rotary(self, g: Graph, rows: int | str, head_dim: int, prefix: str = "") -> PairTables:
        return PairTables.inputs(g, prefix, rows, head_dim)

    # -- attention ------------------------------------------------------------------------------------------------------

    def project(self, g: Graph, d: Dimensions, x: str, weights: Source, rotary: PairTables, cache: str | None = None) -> tuple[str, str, str]:
        """Queries [1, rows, heads · head_dim] and keys [1, rows, head_dim], rotated; values [1, rows, head_dim]."""
        queries = d.query_heads * d.head_dim
        together = linear(g, "query_key_value", x, weights)
        rows = g.op("Reshape", "query_key_value_rows", [together, g.ints(1, -1, queries + 2 * d.head_dim)])
        names = [g.full("query"), g.full("key"), f"{cache}.value" if cache else g.full("value")]
        query, key, value = g.node("Split", names, [rows, g.ints(queries, d.head_dim, d.head_dim)], axis=2)
        query = rotary.rotate(g, g.full("query_rotated"), query, d.query_heads)
        return query, rotary.rotate(g, f"{cache}.key" if cache else g.full("key_rotated"), key, 1), value

    def project_keys(self, g: Graph, d: Dimensions, x: str, weights: Source, rotary: PairTables, cache: str | None = None) -> tuple[str, str]:
        together = linear(g, "key_value", x, weights)
        rows = g.op("Reshape", "key_value_rows", [together, g.ints(1, -1, 2 * d.head_dim)])
        names = [g.full("key"), f"{cache}.value" if cache else g.full("value")]
        key, value = g.node("Split", names, [rows], axis=2, num_outputs=2)
        return rotary.rotate(g, f"{cache}.key" if cache else g.full("key_rotated"), key, 1), value

    def cache(self, g: Graph, d: Dimensions, layer: int, key: str, value: str) -> None:
        for name in (key, value):
            g.output(name, g.compute, [1, "prefix", d.head_dim])

    def attend(self, g: Graph, d: Dimensions, query: str, key: str, value: str, padding: list[str]) -> str:
        return self.attention(g, d, query, key, value, padding)

    def suffix(self, g: Graph, d: Dimensions, suffix: int, state: bool, padding: list[str]) -> SuffixAttention:
        return SuffixAttention(self, g, d, suffix + state, padding)

    # -- vision ---------------------------------------------------------------------------------------------------------

    def patches(self, g: Graph, model: Model, pixels: str, tensor: str, position: Source) -> FusedResidual:
        """A product in place of a convolution, for which the provider would load cuDNN."""
        d = model.dimensions
        size, rows, columns = d.patch_size, d.image_height // d.patch_size, d.image_width // d.patch_size
        if d.image_height % size or d.image_width % size:
            ends = g.ints(rows * size, columns * size)
            pixels = g.op("Slice", "patch_pixels", [pixels, g.ints(0, 0), ends, g.ints(2, 3)])
        grid = g.op("Reshape", "patch_grid", [pixels, g.ints(-1, 3, rows, size, columns, size)])
        flat = g.op("Transpose", "patch_rows", [grid], perm=[0, 2, 4, 1, 3, 5])
        flat = g.op("Reshape", "patch_values", [flat, g.ints(-1, 3 * size * size)])
        weight, bias = (Rows(model[tensor + part]) for part in ("weight", "bias"))
        tokens = linear(g, "patch", g.cast("patch_cast", flat, "compute"), Flat(weight), bias)
        tokens = g.op("Reshape", "patch_tokens", [tokens, g.ints(-1, d.tokens_per_view, d.vision_width)])
        tokens = g.op("Add", "tokens", [tokens, g.weight("position", position)])
        return FusedResidual(g, g.op("Reshape", "rows", [tokens, g.ints(-1, d.vision_width)]))

    def attend_view(self, g: Graph, d: Dimensions, together: str) -> str:
        rows = g.op("Reshape", "query_key_value_views", [together, g.ints(-1, d.tokens_per_view, 3 * d.vision_width)])
        parts = g.split_op("Split", ["query", "key", "value"], [rows], axis=2, num_outputs=3)
        scaled = self.attention_of_views(g, d, *parts)
        return g.op("Reshape", "rows", [scaled, g.ints(-1, d.vision_width)])

    def gelu_of(self, g: Graph, name: str, x: str, weight: Source, bias: Source) -> str:
        product = linear(g, name, x, weight)
        with g.scope(name):
            bias = g.weight("bias", bias)
        return g.op("FastGelu", "gelu", [product, bias], domain=CONTRIB)


    def attention(self, g: Graph, d: Dimensions, query: str, key: str, value: str, count: list[str]) -> str:
        """Every query head over the one key head: all its keys, or the first ``count``. Queries are scaled already."""
        inputs = [query, key, value, *(["", "", "", *count] if count else [])]
        return g.op("Attention", "attention", inputs, q_num_heads=d.query_heads, kv_num_heads=1, scale=1.0)

    def attention_of_views(self, g: Graph, d: Dimensions, query: str, key: str, value: str) -> str:
        heads = d.vision_heads
        return g.op("Attention", "attention", [query, key, value], q_num_heads=heads, kv_num_heads=heads, scale=1.0)


class OlderFused(Fused):
    """The forms of the target ``cuda`` that ONNX Runtime 1.23 takes. Not in bf16, and not of a padded prefix."""

    onnxruntime = "1.23"

    def opset(self, padded: bool) -> int:
        return 20

    def suffix(self, g: Graph, d: Dimensions, suffix: int, state: bool, padding: list[str]) -> Callable[..., str]:
        return lambda query, key, value, past: self.attention(g, d, query, key, value, padding, past)

    def attention(
        self, g: Graph, d: Dimensions, query: str, key: str, value: str, count: list[str], past: Sequence[str] = (),
    ) -> str:
        """Over the keys of ``past`` too. The operator joins them itself; a Concat of two lengths would read the host's memory there."""
        assert not count
        # Every query sees every key, so that its heads may as well be rows.
        rows = g.op("Reshape", "query_rows", [query, g.ints(1, -1, d.head_dim)])
        whole = g.ints(1, 1, -1, d.head_dim)
        past = [g.op("Reshape", f"past_{name}", [cached, whole]) for name, cached in zip(("key", "value"), past)]
        inputs, names = [rows, key, value], ["attention"]
        if past:
            inputs, names = [*inputs, "", "", "", *past], [*names, "keys", "values"]
        return g.split_op("MultiHeadAttention", names, inputs, domain=CONTRIB, num_heads=1, scale=1.0)[0]

    def attention_of_views(self, g: Graph, d: Dimensions, query: str, key: str, value: str) -> str:
        return g.op("MultiHeadAttention", "attention", [query, key, value], domain=CONTRIB, num_heads=d.vision_heads, scale=1.0)


class SuffixAttention:
    """Attention over suffix and prefix. The suffix's keys come first, so that those which count are the first ones; ``rows``: those
    beside the prefix's."""

    def __init__(self, forms: Fused, g: Graph, d: Dimensions, rows: int, padding: list[str]):
        self._forms, self._g, self._d = forms, g, d
        self._count = [g.op("Add", "key_rows", [*padding, g.ints(rows)])] if padding else []

    def __call__(self, query: str, key: str, value: str, past: list[str]) -> str:
        g = self._g
        keys, values = (
            g.op("Concat", name, [own, cached], axis=1) for name, own, cached in zip(("keys", "values"), (key, value), past)
        )
        return self._forms.attention(g, self._d, query, keys, values, self._count)


class Flat:
    """A tensor with all but its first dimension made one."""

    def __init__(self, source: Source):
        self._source = source
        self.count = source.count
        self.shape = (source.shape[0], source.count // source.shape[0])

    def blocks(self):
        return self._source.blocks()

    def pieces(self):
        return self._source.pieces()
