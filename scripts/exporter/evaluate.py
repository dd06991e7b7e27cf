"""Evaluates an exported graph with numpy: every operator in f32, every result rounded to the dtype the graph gives it.

That is the arithmetic of a GPU's matrix units, which sum in f32 whatever they are fed, so that it shows what a precision costs
where nothing can run it. Without rounding, it shows how large the values of a graph get before anything overflows.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .errors import ExportError
from .graph import DTYPES, NUMPY

NAMES = {number: name for name, number in DTYPES.items()}
NARROW = ("f16", "bf16", "i8")

# The graph, the name of a node's output, its dtype, its values.
Observer = Callable[[onnx.GraphProto, str, str, np.ndarray], None]


class Evaluator:
    """One graph. ``observe`` sees every node's outputs; without ``rounding``, floats stay as they were computed, in f32."""

    def __init__(self, path: Path, rounding: bool = True, observe: Observer | None = None):
        self._directory, self._rounding, self._observe = path.parent, rounding, observe
        self.graph = onnx.load(path, load_external_data=False).graph
        self._weights = {tensor.name: self._open(tensor) for tensor in self.graph.initializer}
        self._last_use = {name: i for i, node in enumerate(self.graph.node) for name in node.input}
        self._outputs = [output.name for output in self.graph.output]

    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The graph's outputs by name, in their dtypes; all in f32 without rounding."""
        # A value is an array and the dtype that the graph gives it.
        values: dict[str, tuple[np.ndarray, str]] = {}
        for declared in self.graph.input:
            dtype = NAMES[declared.type.tensor_type.elem_type]
            values[declared.name] = (self._stored(inputs[declared.name], dtype), dtype)
        for index, node in enumerate(self.graph.node):
            found = [(values.get(name) or self._weight(name)) if name else (None, "") for name in node.input]
            attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
            operator = OPERATORS.get(node.op_type)
            if operator is None:
                raise ExportError(f"{self.graph.name}: {node.name}: no evaluation of the operator {node.op_type}")
            # Weights are mapped from the file: they are widened here and let go right after.
            operands = [array.astype(np.float32, copy=False) if dtype in NARROW else array for array, dtype in found]
            # What a choice is between, and what is rounded by, have the result's dtype.
            dtype = found[node.op_type in ("Where", "DequantizeLinear")][1]
            dtype = {"Cast": NAMES.get(attributes.get("to")), "Shape": "i64"}.get(node.op_type, dtype)
            if operator in (_attention, _multi_head_attention):
                attributes["rounded"] = lambda array, dtype=dtype: self._stored(array, dtype).astype(np.float32)
            with np.errstate(over="ignore", invalid="ignore"):
                results = operator(attributes, len(node.output), *operands)
                for name, result in zip(node.output, results):
                    if not name:
                        continue
                    if self._observe:
                        self._observe(self.graph, name, dtype, result)
                    values[name] = (self._stored(result, dtype), dtype)
            for name in filter(None, node.input):
                if self._last_use[name] == index and name not in self._outputs:
                    values.pop(name, None)
        return {name: values[name][0] for name in self._outputs}

    def _stored(self, array: np.ndarray, dtype: str) -> np.ndarray:
        if dtype == "i64":
            return array
        return array.astype(NUMPY[dtype] if self._rounding else np.float32, copy=False)

    def _weight(self, name: str) -> tuple[np.ndarray, str]:
        return self._weights[name]

    def _open(self, tensor: TensorProto) -> tuple[np.ndarray, str]:
        dtype = NAMES[tensor.data_type]
        if tensor.data_location != TensorProto.EXTERNAL:
            return numpy_helper.to_array(tensor), dtype
        place = {entry.key: entry.value for entry in tensor.external_data}
        path, shape = self._directory / place["location"], tuple(tensor.dims)
        return np.memmap(path, NUMPY[dtype], "r", int(place["offset"]), shape), dtype


def _gemm(attributes: dict, _: int, a: np.ndarray, b: np.ndarray, c: np.ndarray | None = None) -> list[np.ndarray]:
    product = a @ (b.T if attributes.get("transB") else b)
    return [product if c is None else product + c]


def _dynamic_quantize(_: dict, __: int, x: np.ndarray) -> list[np.ndarray]:
    low, high = min(x.min(), np.float32(0)), max(x.max(), np.float32(0))
    scale = (high - low) / np.float32(255) or np.float32(1)
    zero = np.rint(np.clip(-low / scale, 0, 255))
    return [np.clip(np.rint(x / scale) + zero, 0, 255), np.asarray(scale), np.asarray(zero)]


def _integer_product(
    _: dict, __: int, x: np.ndarray, weight: np.ndarray, x_scale: np.ndarray, scales: np.ndarray, zero: np.ndarray,
    weight_zero: np.ndarray, bias: np.ndarray | None = None,
) -> list[np.ndarray]:
    product = (x - zero) @ (weight - weight_zero) * (x_scale * scales)
    return [product if bias is None else product + bias]


def _quantize(_: dict, __: int, x: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> list[np.ndarray]:
    return [np.clip(np.rint(x / scale) + zero, -128, 127)]


def _dequantize(attributes: dict, _: int, x: np.ndarray, scale: np.ndarray, zero: np.ndarray | float = 0.0) -> list[np.ndarray]:
    shape = [-1 if axis == attributes.get("axis") else 1 for axis in range(x.ndim)]
    return [(x - zero) * (scale.reshape(shape) if scale.ndim else scale)]


def _block_product(attributes: dict, _: int, x: np.ndarray, weight: np.ndarray, scales: np.ndarray) -> list[np.ndarray]:
    """With weights of 4 or 8 bits in blocks; where the level of accuracy is 4, activations are rounded to 8 bits in blocks too."""
    size, columns = attributes["block_size"], attributes["K"]
    if attributes["bits"] == 4:
        weight = np.stack([weight & 15, weight >> 4], -1).reshape(*weight.shape[:2], -1)
    weight = (weight.astype(np.float32) - (1 << attributes["bits"] - 1)) * scales.reshape(*weight.shape[:2], 1)
    weight = weight.reshape(len(weight), -1)[:, :columns]
    return [(in_blocks(x, size) if attributes.get("accuracy_level") == 4 else x) @ weight.T]


def in_blocks(x: np.ndarray, size: int) -> np.ndarray:
    """``x`` [rows, columns] rounded to 8 bits with a scale for every ``size`` values of a row."""
    blocks = np.pad(x, ((0, 0), (0, -x.shape[1] % size))).reshape(len(x), -1, size)
    scales = np.maximum(np.abs(blocks).max(-1, keepdims=True) / np.float32(127), np.float32(1e-30))
    return (np.rint(blocks / scales) * scales).reshape(len(x), -1)[:, : x.shape[1]]


def _conv(attributes: dict, _: int, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> list[np.ndarray]:
    """A convolution whose patches lie side by side."""
    views, channels, height, width = x.shape
    size = weight.shape[2]
    rows, columns = height // size, width // size
    assert attributes["strides"] == attributes["kernel_shape"] == [size, size]
    patches = x[:, :, : rows * size, : columns * size].reshape(views, channels, rows, size, columns, size)
    patches = patches.transpose(0, 2, 4, 1, 3, 5).reshape(views * rows * columns, -1)
    maps = patches @ weight.reshape(len(weight), -1).T + bias
    return [maps.reshape(views, rows, columns, -1).transpose(0, 3, 1, 2)]


def _layer_norm(attributes: dict, _: int, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> list[np.ndarray]:
    centred = x - x.mean(-1, keepdims=True)
    return [centred / np.sqrt((centred**2).mean(-1, keepdims=True) + np.float32(attributes["epsilon"])) * weight + bias]


def _rms_norm(attributes: dict, _: int, x: np.ndarray, weight: np.ndarray) -> list[np.ndarray]:
    return [x / np.sqrt((x**2).mean(-1, keepdims=True) + np.float32(attributes["epsilon"])) * weight]


def _skip_rms_norm(attributes: dict, _: int, x: np.ndarray, branch: np.ndarray, weight: np.ndarray) -> list[np.ndarray]:
    total = x + branch
    return [*_rms_norm(attributes, 1, total, weight), total, total, total]


def _skip_layer_norm(
    attributes: dict, _: int, x: np.ndarray, branch: np.ndarray, weight: np.ndarray, bias: np.ndarray, added: np.ndarray,
) -> list[np.ndarray]:
    total = x + branch + added
    return [*_layer_norm(attributes, 1, total, weight, bias), total, total, total]


def _rotate(attributes: dict, _: int, x: np.ndarray, start: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> list[np.ndarray]:
    heads = x.reshape(*x.shape[:2], attributes["num_heads"], -1)
    first, second = np.split(heads, 2, -1)
    rows = slice(int(start[0]), int(start[0]) + x.shape[1])
    cos, sin = cos[rows, None], sin[rows, None]
    return [np.concatenate([first * cos - second * sin, second * cos + first * sin], -1).reshape(x.shape)]


def _attention(
    attributes: dict, _: int, query: np.ndarray, key: np.ndarray, value: np.ndarray, *rest: np.ndarray | None,
) -> list[np.ndarray]:
    """Of all keys, or the first of them. Weights are rounded before they meet the values, as fused kernels do."""
    mask, _, _, count = [*rest, *[None] * 4][:4]
    q, k, v = query, key, value
    if query.ndim == 3:
        sizes = [attributes[f"{part}_num_heads"] for part in ("q", "kv", "kv")]
        q, k, v = (x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3) for x, heads in zip((q, k, v), sizes))
    if count is not None:
        k, v = k[:, :, : count[0]], v[:, :, : count[0]]
    k, v = (np.repeat(x, q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = q @ k.transpose(0, 1, 3, 2) * np.float32(attributes["scale"])
    scores = scores if mask is None else scores + mask
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = attributes["rounded"](powers) @ v / powers.sum(-1, keepdims=True)
    return [mixed if query.ndim == 4 else mixed.transpose(0, 2, 1, 3).reshape(query.shape)]


def _multi_head_attention(
    attributes: dict, _: int, query: np.ndarray, key: np.ndarray, value: np.ndarray, *rest: np.ndarray | None,
) -> list[np.ndarray]:
    """ONNX Runtime's: as many key heads as query heads, and keys and values before those given."""
    heads = attributes["num_heads"]
    if rest:
        assert heads == 1
        key, value = (np.concatenate([past[:, 0], own], 1) for past, own in zip(rest[3:], (key, value)))
    mixed = _attention({**attributes, "q_num_heads": heads, "kv_num_heads": heads}, 1, query, key, value)
    return [*mixed, key[:, None], value[:, None]]


def _fast_gelu(_: dict, __: int, x: np.ndarray, bias: np.ndarray) -> list[np.ndarray]:
    return _gelu({"approximate": b"tanh"}, 1, x + bias)


def _gelu(attributes: dict, _: int, x: np.ndarray) -> list[np.ndarray]:
    assert attributes["approximate"] == b"tanh"
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
    return [np.float32(0.5) * x * (1 + np.tanh(inner))]


def _softmax(attributes: dict, _: int, x: np.ndarray) -> list[np.ndarray]:
    powers = np.exp(x - x.max(attributes["axis"], keepdims=True))
    return [powers / powers.sum(attributes["axis"], keepdims=True)]


def _split(attributes: dict, count: int, x: np.ndarray, sizes: np.ndarray | None = None) -> list[np.ndarray]:
    return np.split(x, count if sizes is None else np.cumsum(sizes)[:-1], attributes["axis"])


def _slice(_: dict, __: int, x: np.ndarray, starts: np.ndarray, ends: np.ndarray, axes: np.ndarray) -> list[np.ndarray]:
    chosen = [slice(None)] * x.ndim
    for start, end, axis in zip(starts, ends, axes):
        chosen[axis] = slice(start, end)
    return [x[tuple(chosen)]]


# Every operator the exporter emits: its attributes, how many outputs it has, its inputs.
OPERATORS: dict[str, Callable[..., list[np.ndarray]]] = {
    "Add": lambda _, __, a, b: [a + b],
    "Attention": _attention,
    "Cast": lambda _, __, x: [x],
    "Concat": lambda attributes, _, *parts: [np.concatenate(parts, attributes["axis"])],
    "Conv": _conv,
    "DequantizeLinear": _dequantize,
    "Div": lambda _, __, a, b: [a / b],
    "DynamicQuantizeLinear": _dynamic_quantize,
    "Expand": lambda _, __, x, shape: [x * np.ones(shape, np.float32)],
    "FastGelu": _fast_gelu,
    "Gather": lambda attributes, _, x, indices: [np.take(x, indices, attributes["axis"])],
    "Gelu": _gelu,
    "Gemm": _gemm,
    "LayerNormalization": _layer_norm,
    "Less": lambda _, __, a, b: [a < b],
    "MatMul": lambda _, __, a, b: [a @ b],
    "MatMulIntegerToFloat": _integer_product,
    "MatMulNBits": _block_product,
    "Mul": lambda _, __, a, b: [a * b],
    "MultiHeadAttention": _multi_head_attention,
    "Neg": lambda _, __, x: [-x],
    "Pow": lambda _, __, x, y: [x**y],
    "QuantizeLinear": _quantize,
    "ReduceMean": lambda attributes, _, x, axes: [x.mean(tuple(axes), keepdims=bool(attributes["keepdims"]))],
    "Reshape": lambda _, __, x, shape: [x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(shape)])],
    "RotaryEmbedding": _rotate,
    "Shape": lambda attributes, _, x: [np.array(x.shape[attributes["start"] : attributes["end"]])],
    "SimplifiedLayerNormalization": _rms_norm,
    "Sigmoid": lambda _, __, x: [1 / (1 + np.exp(-x))],
    "SkipLayerNormalization": _skip_layer_norm,
    "SkipSimplifiedLayerNormalization": _skip_rms_norm,
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Sqrt": lambda _, __, x: [np.sqrt(x)],
    "Sub": lambda _, __, a, b: [a - b],
    "Transpose": lambda attributes, _, x: [x.transpose(attributes["perm"])],
    "Where": lambda _, __, chosen, a, b: [np.where(chosen, a, b)],
}
