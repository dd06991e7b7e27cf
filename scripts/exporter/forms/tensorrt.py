"""Operators in the patterns that TensorRT compiles to one kernel of attention each, in fp16 and bf16, for heads of 16 to 256 values.

The key head is repeated for every query head, and so is the value: broadcast, or with heads as rows, the scores are written out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..sources import Source, Values
from .portable import MASKED, Portable, Rotary, linear

if TYPE_CHECKING:
    from ..graph import Graph
    from ..model import Dimensions

HEADS_FIRST = [0, 2, 1, 3]


class TensorRt(Portable):
    """The forms of the target ``tensorrt``, of operators that TensorRT 10.3 has."""

    version = "10.3"

    def recorded(self, policy: str) -> dict:
        return {**super().recorded(policy), "tensorrt": self.version}

    def rotary(self, g: Graph, rows: int | str, head_dim: int) -> Rotary:
        """Tables [1, 1, rows, head_dim]."""
        tables = [g.input(f"rope_{part}", "f32", [rows, head_dim // 2]) for part in ("cos", "sin")]
        whole = g.ints(1, 1, -1, head_dim)
        with g.scope("rope"):
            firsts = [tables[0], g.op("Neg", "minus_sin", [tables[1]])]
            pairs = [g.op("Concat", f"{name}_pairs", pair, axis=1) for name, pair in zip(("cos", "sin"), zip(firsts, tables))]
            return HeadRotary(*(g.op("Reshape", name, [pair, whole]) for name, pair in zip(("cos", "sin"), pairs)))

    def project(self, g: Graph, d: Dimensions, x: str, weights: Source, rotary: Rotary, cache: str | None = None) -> tuple[str, str, str]:
        """Queries [1, heads, rows, head_dim] and keys [1, 1, rows, head_dim], rotated; values [1, 1, rows, head_dim]."""
        together = linear(g, "query_key_value", x, weights)
        heads = g.op("Reshape", "projected", [together, g.ints(1, -1, d.query_heads + 2, d.head_dim)])
        heads = g.op("Transpose", "heads_first", [heads], perm=HEADS_FIRST)
        query, key, value = g.split_op("Split", ["query", "key", "value"], [heads, g.ints(d.query_heads, 1, 1)], axis=1)
        with g.scope("query"):
            query = self._rotated(g, rotary, query)
        with g.scope("key"):
            return query, self._rotated(g, rotary, key), value

    def project_keys(self, g: Graph, d: Dimensions, x: str, weights: Source, rotary: Rotary, cache: str | None = None) -> tuple[str, str]:
        together = linear(g, "key_value", x, weights)
        heads = g.op("Reshape", "projected", [together, g.ints(1, -1, 2, d.head_dim)])
        heads = g.op("Transpose", "heads_first", [heads], perm=HEADS_FIRST)
        key, value = g.split_op("Split", ["key", "value"], [heads], axis=1, num_outputs=2)
        with g.scope("key"):
            return self._rotated(g, rotary, key), value

    def attend(self, g: Graph, d: Dimensions, query: str, key: str, value: str, padding: list[str]) -> str:
        return self._attention(g, d, query, key, value, padding)

    def suffix(self, g: Graph, d: Dimensions, suffix: int, state: bool, padding: list[str]) -> SuffixAttention:
        return SuffixAttention(self, g, d, suffix, state, padding)

    def _rotated(self, g: Graph, rotary: Rotary, x: str) -> str:
        return g.cast("rotated_cast", rotary.rotate(g, g.cast("f32", x, "f32")), "compute")

    def _attention(self, g: Graph, d: Dimensions, query: str, key: str, value: str, mask: list[str]) -> str:
        """What the heads see, [1, rows, heads, head_dim]; ``mask`` is added to the scores."""
        heads = g.ints(1, d.query_heads, 1, 1)
        keys = g.op("Expand", "keys", [g.op("Transpose", "key_columns", [key], perm=[0, 1, 3, 2]), heads])
        scores = g.op("MatMul", "scores", [query, keys])
        for bias in mask:
            scores = g.op("Add", "scores_seen", [scores, bias])
        weights = g.op("Softmax", "softmax", [g.cast("scores_f32", scores, "f32")], axis=-1)
        weights = g.cast("softmax_cast", weights, "compute")
        mixed = g.op("MatMul", "weighted_values", [weights, g.op("Expand", "values", [value, heads])])
        return g.op("Transpose", "rows_first", [mixed], perm=HEADS_FIRST)


class AttentionTensorRt(TensorRt):
    """The forms for TensorRT 10.14 and newer, which has an operator for attention: the prefix's keys and values are not repeated for
    it. The denoise step's are, while they are joined, and its kernel writes its result as the next product reads it."""

    version = "10.14"
    onnxruntime = "1.23"  # the first that loads opset 23

    def opset(self, padded: bool) -> int:
        return 23

    def attend(self, g: Graph, d: Dimensions, query: str, key: str, value: str, padding: list[str]) -> str:
        # A bias would have to be repeated for every row.
        if padding or not _has_kernel(g, d.head_dim):
            return super().attend(g, d, query, key, value, padding)
        mixed = g.op("Attention", "attention", [query, key, value], scale=1.0)
        return g.op("Transpose", "rows_first", [mixed], perm=HEADS_FIRST)

    def attend_view(self, g: Graph, d: Dimensions, together: str) -> str:
        head_dim = d.vision_width // d.vision_heads
        if not _has_kernel(g, head_dim):
            return super().attend_view(g, d, together)
        heads = g.op("Reshape", "projected", [together, g.ints(-1, d.tokens_per_view, 3, d.vision_heads, head_dim)])
        heads = g.op("Transpose", "heads_first", [heads], perm=[2, 0, 3, 1, 4])
        parts = g.split_op("Split", ["query", "key", "value"], [heads], axis=0, num_outputs=3)
        shape = g.ints(-1, d.vision_heads, d.tokens_per_view, head_dim)
        parts = [g.op("Reshape", f"{name}_heads", [part, shape]) for name, part in zip(("query", "key", "value"), parts)]
        return g.op("Reshape", "rows", [self.attend(g, d, *parts, []), g.ints(-1, d.vision_width)])


def _has_kernel(g: Graph, head_dim: int) -> bool:
    """Tells whether TensorRT has a kernel for the operator: where it has none, the build fails."""
    return g.compute != "f32" and head_dim % 8 == 0 and 16 <= head_dim <= 256


class HeadRotary(Rotary):
    """Rotary tables [1, 1, rows, head_dim], for ``x`` [1, heads, rows, head_dim]."""

    axis = 3


class SuffixAttention:
    """Attention over suffix and prefix in one: the suffix's keys come first."""

    def __init__(self, forms: TensorRt, g: Graph, d: Dimensions, suffix: int, state: bool, padding: list[str]):
        self._forms, self._g, self._d = forms, g, d
        self._suffix, self._state, self._padding = suffix, state, padding
        self._mask: list[str] | None = None

    def __call__(self, query: str, key: str, value: str, past: list[str]) -> str:
        g, d = self._g, self._d
        if self._mask is None:
            self._mask = self._made_mask(past[0])
        past = [g.op("Reshape", f"past_{name}", [cached, g.ints(1, 1, -1, d.head_dim)]) for name, cached in zip(("key", "value"), past)]
        keys, values = (
            g.op("Concat", name, [own, cached], axis=2) for name, own, cached in zip(("keys_joined", "values_joined"), (key, value), past)
        )
        return self._forms._attention(g, d, query, keys, values, self._mask)

    def _made_mask(self, past: str) -> list[str]:
        """What is added to the scores [suffix, suffix + prefix], if anything is."""
        g = self._g
        if not self._state and not self._padding:
            return []
        own = np.zeros((self._suffix, self._suffix), np.float32)
        own[0, 1:] = MASKED * self._state
        own = g.weight("suffix.mask", Values(own))
        with g.scope("mask"):
            prefix = self._padding[0] if self._padding else g.weight("nothing", Values(np.zeros((1, 1))))
            rows = g.op("Concat", "shape", [g.ints(self._suffix), g.op("Shape", "prefix_length", [past], start=1, end=2)], axis=0)
            return [g.op("Concat", "mask", [own, g.op("Expand", "prefix", [prefix, rows])], axis=1)]
