"""Streams seeded random tensors into a safetensors file of any size through one small buffer."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Callable, Iterable

import ml_dtypes
import numpy as np

from .outliers import Outliers
from .tensors import TensorSpec

BLOCK = 1 << 20  # values generated at a time
ITEM_SIZE = {"F32": 4, "BF16": 2}


def write_weights(
    path: Path,
    tensors: Iterable[TensorSpec],
    dtype_of: Callable[[str], str],
    seed: int,
    outliers: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Writes ``tensors`` in safetensors' own order: wide dtypes first, then by name."""
    ordered = sorted(tensors, key=lambda t: (-ITEM_SIZE[dtype_of(t.name)], t.name))
    header: dict = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in ordered:
        dtype = dtype_of(tensor.name)
        end = offset + tensor.count * ITEM_SIZE[dtype]
        header[tensor.name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    done = 0
    with open(path, "wb") as out:
        out.write(len(text).to_bytes(8, "little"))
        out.write(text)
        for tensor in ordered:
            done += _write_tensor(out, tensor, dtype_of(tensor.name), seed, outliers)
            progress(done, offset)


def _write_tensor(out, tensor: TensorSpec, dtype: str, seed: int, outliers: bool) -> int:
    # Each tensor has its own stream, so that its values depend on the seed and its name only.
    bare = tensor.name.removeprefix("model.")
    random = np.random.Generator(np.random.SFC64([seed, zlib.crc32(bare.encode())]))
    rough = Outliers(tensor, seed) if outliers else None
    buffer = np.empty(min(BLOCK, tensor.count), np.float32)
    written = 0
    for start in range(0, tensor.count, BLOCK):
        block = buffer[: min(BLOCK, tensor.count - start)]
        if rough:
            rough.fill(block, start, random)
        else:
            random.standard_normal(out=block, dtype=np.float32)
            block *= np.float32(tensor.scale)
            block += np.float32(tensor.offset)
        written += out.write(memoryview(block if dtype == "F32" else block.astype(ml_dtypes.bfloat16).view(np.uint16)))
    return written
