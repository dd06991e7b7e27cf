"""Builds one ONNX graph, streaming its weights into the external data file beside it.

Values are named after the node that computes them, and nodes after their place in the model, so that a profile or an error
message of the runtime reads like the model.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterator

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .errors import ExportError
from .forms import Portable
from .sources import Source

IR_VERSION = 10
ALIGNMENT = 4096  # whole pages, so that a runtime can map the file and use the tensors where they are
INLINE_LIMIT = 1024

DTYPES = {
    "f32": TensorProto.FLOAT, "f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16, "i64": TensorProto.INT64,
    "i8": TensorProto.INT8, "u8": TensorProto.UINT8,
}
NUMPY = {
    "f32": np.dtype(np.float32), "f16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16),
    "i8": np.dtype(np.int8), "u8": np.dtype(np.uint8),
}


class Graph:
    """A graph under construction. ``compute`` is the dtype of matrix products; everything named f32 stays in f32.
    ``forms``: how its operators are written. ``padded_prefix``: the prefix may hold rows that are not to be seen."""

    def __init__(
        self, directory: Path, name: str, compute: str, progress: Callable[[int], None] = lambda size: None,
        forms: Portable = Portable(), padded_prefix: bool = False,
    ):
        self.name = name
        self.compute = compute
        self.forms = forms
        self.padded_prefix = padded_prefix
        self.inputs: list[dict] = []
        self.outputs: list[dict] = []
        self.path = directory / f"{name}.onnx"
        self.data = DataFile(directory / f"{name}.onnx.data", progress)
        self._nodes: list[onnx.NodeProto] = []
        self._made: set[str] = set()
        self._initializers: list[TensorProto] = []
        self._shared: dict[tuple, str] = {}
        self._scope: list[str] = []

    @property
    def opset(self) -> int:
        return self.forms.opset(self.padded_prefix)

    # -- values ---------------------------------------------------------------------------------------------------------

    def input(self, name: str, dtype: str, shape: list[int | str]) -> str:
        self.inputs.append({"name": name, "dtype": dtype, "shape": shape})
        return name

    def output(self, name: str, dtype: str, shape: list[int | str]) -> None:
        self.outputs.append({"name": name, "dtype": dtype, "shape": shape})

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Puts ``name.`` before the names of everything made inside."""
        self._scope.append(name)
        yield
        self._scope.pop()

    def full(self, name: str) -> str:
        """``name`` after the names of the scopes it is in."""
        return ".".join([*self._scope, name])

    def op(self, kind: str, name: str, inputs: list[str], **attributes) -> str:
        """Adds a node with one output and returns the output's name."""
        return self.split_op(kind, [name], inputs, **attributes)[0]

    def split_op(self, kind: str, names: list[str], inputs: list[str], **attributes) -> list[str]:
        """Adds a node with several outputs."""
        return self.node(kind, [self.full(name) if name else "" for name in names], inputs, **attributes)

    def node(self, kind: str, names: list[str], inputs: list[str], **attributes) -> list[str]:
        """Adds a node whose outputs have these names, whatever the scope."""
        self._nodes.append(helper.make_node(kind, inputs, names, name=names[0], **attributes))
        self._made.add(names[0])
        return names

    def has(self, name: str) -> bool:
        """Tells whether the node that is named after ``name``, its first output, was added."""
        return name in self._made

    def named_output(self, kind: str, name: str, inputs: list[str], dtype: str, shape: list[int | str], **attributes) -> str:
        """Adds a node whose result is the graph's output ``name``."""
        self.output(name, dtype, shape)
        return self.node(kind, [name], inputs, **attributes)[0]

    def cast(self, name: str, value: str, dtype: str) -> str:
        """``value`` in ``dtype``: itself where the graph computes in f32 throughout."""
        dtype = self.compute if dtype == "compute" else dtype
        return value if self.compute == "f32" else self.op("Cast", name, [value], to=DTYPES[dtype])

    def ints(self, *values: int) -> str:
        """A small list of whole numbers: a shape, axes, bounds. Equal ones are stored once."""
        return self._small("int", np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        return self._small("value", np.array(value, np.float32))

    def small(self, prefix: str, values: np.ndarray, dtype: str) -> str:
        """A constant of few values. Equal ones are stored once."""
        return self._small(prefix, values.astype(NUMPY[dtype]))

    def weight(self, name: str, source: Source, dtype: str | None = None) -> str:
        """A tensor of the model, written to the data file at once and block by block; in ``compute`` unless said otherwise."""
        dtype = self.compute if dtype in (None, "compute") else dtype
        kind = NUMPY[dtype]
        tensor = TensorProto(name=self.full(name), data_type=DTYPES[dtype], dims=source.shape)
        blocks = narrowed(source, kind, f"{self.name}: {tensor.name}")
        if source.count * kind.itemsize < INLINE_LIMIT:
            tensor = numpy_helper.from_array(np.concatenate(list(blocks)).reshape(source.shape), tensor.name)
        else:
            offset, length = self._store(source, kind, blocks)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", self.data.path.name), ("offset", offset), ("length", length)):
                tensor.external_data.add(key=key, value=str(value))
        self._initializers.append(tensor)
        return tensor.name

    # -- writing --------------------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Writes the graph, whose weights are written already."""
        graph = helper.make_graph(
            self._nodes,
            self.name,
            [_value_info(value) for value in self.inputs],
            [_value_info(value) for value in self.outputs],
            self._initializers,
        )
        opsets = {"": self.opset, **self.forms.domains}
        imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
        model = helper.make_model(graph, producer_name="pi0-edge", opset_imports=imports, ir_version=IR_VERSION)
        self.path.write_bytes(model.SerializeToString(deterministic=True))

    def _store(self, source: Source, kind: np.dtype, blocks: Iterator[np.ndarray]) -> tuple[int, int]:
        """Puts a weight into the data file; returns where it is and how long."""
        return self.data.append(blocks)

    def _small(self, prefix: str, values: np.ndarray) -> str:
        key = (prefix, values.dtype, values.shape, values.tobytes())
        if key not in self._shared:
            name = f"{prefix}.{len(self._shared)}"
            self._initializers.append(numpy_helper.from_array(values, name))
            self._shared[key] = name
        return self._shared[key]


class DataFile:
    """An external data file: aligned tensors one after the other, hashed while they are written."""

    def __init__(self, path: Path, progress: Callable[[int], None] = lambda size: None):
        self.path = path
        self.size = 0
        self._hash = hashlib.sha256()
        self._file = open(path, "wb")
        self._progress = progress

    def append(self, blocks: Iterator[np.ndarray]) -> tuple[int, int]:
        """Writes the blocks at the next aligned place; returns where that is and how long they are."""
        self._write(b"\0" * (-self.size % ALIGNMENT))
        start = self.size
        for block in blocks:
            self._write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
        return start, self.size - start

    def __enter__(self) -> DataFile:
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def record(self) -> dict:
        """Size and SHA-256 of what was written."""
        return {"size": self.size, "sha256": self._hash.hexdigest()}

    def _write(self, data) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)
        self._progress(self.size)


def narrowed(source: Source, kind: np.dtype, name: str) -> Iterator[np.ndarray]:
    """The blocks of ``source`` in the dtype ``kind``, rounded to nearest. ``name`` is for the message."""
    for block in source.blocks():
        with np.errstate(over="ignore"):
            rounded = block.astype(kind, copy=False)
        if kind.itemsize < block.itemsize and not np.isfinite(rounded).all():
            raise ExportError(f"{name}: holds a weight beyond the range of {kind}; export with --precision bf16 or fp32")
        yield rounded


def _value_info(value: dict) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(value["name"], DTYPES[value["dtype"]], value["shape"])
