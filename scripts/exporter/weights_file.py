"""Reads a safetensors file through a memory map, a few rows at a time.

The file may be several times larger than memory: nothing is copied but the rows asked for, and the pages behind them are given
back to the system once a tensor has been read.
"""

from __future__ import annotations

import json
import mmap
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Iterator

import ml_dtypes
import numpy as np

from .errors import ExportError, refuse_lfs_pointer

MAX_HEADER = 100_000_000  # the limit safetensors itself sets
ITEM_SIZE = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}
READABLE = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16)}
BLOCK_BYTES = 8 << 20  # of f32 values handed out at a time


@dataclass(frozen=True)
class Tensor:
    """One tensor of the file: where it lies and what it is."""

    file: WeightsFile
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        return prod(self.shape) * ITEM_SIZE[self.dtype]

    def blocks(self) -> Iterator[np.ndarray]:
        """The tensor in order as blocks of whole rows, each in f32; one row at least, a few megabytes at most."""
        values = self.file.values(self)
        row = max(1, prod(self.shape[1:]))
        step = max(1, BLOCK_BYTES // (4 * row))
        for start in range(0, self.shape[0], step):
            # Block by block: astype copies, so what is handed out never refers to the map.
            yield values[start : start + step].astype(np.float32)
        self.file.release(self)

    def read(self) -> np.ndarray:
        """The whole tensor in f32; for small ones."""
        return np.concatenate(list(self.blocks()))


class WeightsFile:
    """A safetensors file whose header has been checked and whose data is mapped."""

    def __init__(self, path: Path):
        self.path = path
        refuse_lfs_pointer(path)
        try:
            with open(path, "rb") as file:
                size = file.seek(0, 2)
                header, self._data = self._read_header(file, size)
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise ExportError(f"{path}: no such file; the checkpoint must have its weights in one safetensors file") from None
        self.tensors = {name: self._entry(name, entry, size) for name, entry in header.items() if name != "__metadata__"}

    def values(self, tensor: Tensor) -> np.ndarray:
        """The tensor as it is stored, as a view into the map."""
        kind = READABLE[tensor.dtype]
        return np.frombuffer(self._map, kind, prod(tensor.shape), tensor.offset).reshape(tensor.shape)

    def release(self, tensor: Tensor) -> None:
        """Tells the system that the tensor's pages are not needed any more."""
        if hasattr(mmap, "MADV_DONTNEED"):
            page = mmap.PAGESIZE
            start = -(-tensor.offset // page) * page
            length = (tensor.offset + tensor.size) // page * page - start
            if length > 0:
                self._map.madvise(mmap.MADV_DONTNEED, start, length)

    def error(self, what: str) -> ExportError:
        return ExportError(f"{self.path}: {what}")

    def _read_header(self, file, size: int) -> tuple[dict, int]:
        file.seek(0)
        if size < 8:
            raise self.error(f"not a safetensors file: {size} bytes are too few for a header")
        length = int.from_bytes(file.read(8), "little")
        if length > min(MAX_HEADER, size - 8):
            raise self.error(f"not a safetensors file, or cut short: the header's length is given as {length} bytes of {size}")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise self.error(f"the safetensors header is not JSON: {error}") from None
        if not isinstance(header, dict):
            raise self.error("the safetensors header is not a JSON object")
        return header, 8 + length

    def _entry(self, name: str, entry: object, size: int) -> Tensor:
        try:
            dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
            well_formed = all(isinstance(n, int) and n >= 0 for n in (*shape, start, end)) and isinstance(dtype, str)
        except (KeyError, TypeError, ValueError):
            well_formed = False
        if not well_formed:
            raise self.error(f"{name}: the safetensors header does not describe it as dtype, shape and data_offsets")
        if dtype not in ITEM_SIZE:
            raise self.error(f"{name}: unknown dtype {dtype}")
        tensor = Tensor(self, name, dtype, shape, self._data + start)
        if end - start != tensor.size:
            raise self.error(f"{name}: {dtype} of shape {list(shape)} takes {tensor.size} bytes, the header gives it {end - start}")
        if self._data + end > size:
            raise self.error(f"{name}: lies beyond the end of the file; the file is cut short")
        return tensor
