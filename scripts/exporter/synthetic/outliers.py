"""What makes the activations and weights of trained checkpoints hard to round, which plain random values do not have.

* One channel in 200, the same in every norm of a width, has a gain of 8 to 40, uniform in its logarithm.
* Matrices have heavy tails: Student's t with four degrees of freedom, of the same variance as plain ones.
* One hidden unit in 200 of every MLP is eight times as large as the others.
"""

from __future__ import annotations

import zlib
from math import sqrt

import numpy as np

from .tensors import TensorSpec

SHARE = 1 / 200
GAINS = (8.0, 40.0)
SPIKE = 8.0
FREEDOM = 4
NORMS = ("norm.weight", "norm1.weight", "norm2.weight")
READ_NORMS = ("q_proj.weight", "k_proj.weight", "v_proj.weight", "gate_proj.weight", "up_proj.weight", "fc1.weight")
SPIKING = ("up_proj.weight", "fc1.weight")


class Outliers:
    """Makes values of one tensor, block by block."""

    def __init__(self, tensor: TensorSpec, seed: int):
        self._tensor, self._seed = tensor, seed
        self._heavy = len(tensor.shape) == 2 and ".layers." in tensor.name and ".dense." not in tensor.name
        self._scale = tensor.scale
        if tensor.name.endswith(READ_NORMS):
            # What the gains add to the variance, so that outputs stay of order one.
            gains = _channels(tensor.shape[1], seed)[1]
            self._scale /= sqrt(1 + (gains**2).sum() / tensor.shape[1])

    def fill(self, block: np.ndarray, start: int, random: np.random.Generator) -> None:
        """Fills ``block`` with the tensor's values from number ``start`` on."""
        tensor = self._tensor
        if self._heavy:
            block[:] = random.standard_t(FREEDOM, len(block)) * sqrt((FREEDOM - 2) / FREEDOM)
        else:
            random.standard_normal(out=block, dtype=np.float32)
        block *= np.float32(self._scale)
        block += np.float32(tensor.offset)
        if tensor.name.endswith(SPIKING):
            large = _channels(tensor.shape[0], self._seed)[0]
            block[np.isin((start + np.arange(len(block))) // tensor.shape[1], large)] *= SPIKE
        elif tensor.name.endswith((*NORMS, ".dense.bias")) and ".layers." in tensor.name:
            # Scale, shift and gate of a norm that the time modulates; of those the scale.
            channels, gains = _channels(tensor.shape[0] // (3 if tensor.name.endswith("bias") else 1), self._seed)
            block[channels] += gains - 1


def _channels(width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The channels of a width that stand out, and their gains."""
    random = np.random.default_rng([seed, zlib.crc32(f"outliers {width}".encode())])
    count = max(1, round(SHARE * width))
    gains = np.exp(random.uniform(*np.log(GAINS), count)).astype(np.float32)
    return random.choice(width, count, replace=False), gains
