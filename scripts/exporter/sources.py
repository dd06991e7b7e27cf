"""Where a weight of a graph comes from: tensors of the checkpoint, put together row by row while they are written."""

from __future__ import annotations

from math import prod
from typing import Iterator, Protocol

import numpy as np

from .errors import ExportError
from .weights_file import Tensor


class Source(Protocol):
    """Something that can be written as blocks of rows in f32."""

    shape: tuple[int, ...]

    @property
    def count(self) -> int: ...

    def blocks(self) -> Iterator[np.ndarray]: ...

    def pieces(self) -> Iterator[Source]:
        """What it is put together from, in order; each has values of one kind."""
        ...


class Values:
    """Values computed while exporting; for small tensors."""

    def __init__(self, values: np.ndarray):
        self._values = np.asarray(values, np.float32)
        self.shape = self._values.shape

    @property
    def count(self) -> int:
        return prod(self.shape)

    def blocks(self) -> Iterator[np.ndarray]:
        yield self._values

    def pieces(self) -> Iterator[Values]:
        yield self


class Rows:
    """The rows of one or more tensors of the checkpoint under each other, each tensor times its factor, or every row times its own."""

    def __init__(self, *parts: Tensor | tuple[Tensor, float | np.ndarray]):
        self._parts = [part if isinstance(part, tuple) else (part, 1.0) for part in parts]
        tensors = [tensor for tensor, _ in self._parts]
        self.shape = (sum(tensor.shape[0] for tensor in tensors), *tensors[0].shape[1:])

    @property
    def count(self) -> int:
        return prod(self.shape)

    def pieces(self) -> Iterator[Rows]:
        yield from map(Rows, self._parts)

    def blocks(self) -> Iterator[np.ndarray]:
        for tensor, factor in self._parts:
            row = 0
            for block in tensor.blocks():
                if isinstance(factor, np.ndarray):
                    block *= factor[row : row + len(block)].reshape(-1, *[1] * (block.ndim - 1))
                elif factor != 1.0:
                    block *= np.float32(factor)
                check_finite(tensor, block)
                row += len(block)
                yield block


def check_finite(tensor: Tensor, block: np.ndarray) -> None:
    # A sum of finite f32 values in f64 is finite, and one bad value makes it bad.
    if not np.isfinite(np.add.reduce(block, axis=None, dtype=np.float64)):
        raise ExportError(f"{tensor.file.path}: {tensor.name}: holds a value that is not finite")
