"""Rounds weights to 4 bits so that products come out right, not the weights themselves: GPTQ (Frantar et al. 2022).

Column by column, what rounding takes from the products of the calibration's inputs is given to the columns that are still to be rounded.
"""

from __future__ import annotations

import numpy as np

LOWEST, HIGHEST = -8, 7
DAMPING = 0.01  # of the mean square of the inputs, added to every column's: the calibration has seen few inputs
# Scales that are tried for a block, as shares of the one that reaches its largest value.
SHRINKING = (1.0, 0.9, 0.8, 0.7)


def round_to_nearest(weight: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Integers [rows, columns] from LOWEST to HIGHEST, and a scale for every ``block`` of a row; columns divide into blocks."""
    blocks = weight.reshape(len(weight), -1, block)
    scales = np.stack([_scales(blocks[:, i]) for i in range(blocks.shape[1])], 1)
    return _rounded(blocks, scales[..., None]).reshape(weight.shape), scales


def gptq(weight: np.ndarray, gram: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """As ``round_to_nearest``, for inputs of the Gram matrix ``gram`` [columns, columns]."""
    left, gram = weight.astype(np.float32).copy(), gram.astype(np.float64)
    diagonal = np.einsum("ii->i", gram)
    diagonal += DAMPING * diagonal.mean() or 1.0
    # The upper factor of the inverse: a row of it says how a column's error spreads over those after it.
    factor = np.linalg.cholesky(np.linalg.inv(gram)).T.astype(np.float32)
    integers, scales = np.empty(weight.shape, np.int8), np.empty((len(weight), weight.shape[1] // block), np.float32)
    for index, start in enumerate(range(0, weight.shape[1], block)):
        end = start + block
        scales[:, index] = scale = _scales(left[:, start:end])
        errors = np.empty((len(weight), block), np.float32)
        for column in range(start, end):
            rounded = _rounded(left[:, column], scale)
            integers[:, column] = rounded
            errors[:, column - start] = error = (left[:, column] - rounded * scale) / factor[column, column]
            left[:, column:end] -= error[:, None] * factor[column, column:end]
        left[:, end:] -= errors @ factor[start:end, end:]
    return integers, scales


def _rounded(values: np.ndarray, scales: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values / scales), LOWEST, HIGHEST)


def _scales(blocks: np.ndarray) -> np.ndarray:
    """The scale of every row of ``blocks`` [rows, block] with the least square error, of those that are tried."""
    largest = np.maximum(np.abs(blocks).max(1), np.float32(1e-12)) / HIGHEST
    best, least = largest, np.full(len(blocks), np.inf, np.float32)
    for share in SHRINKING:
        scale = largest * np.float32(share)
        error = ((_rounded(blocks, scale[:, None]) * scale[:, None] - blocks) ** 2).sum(1)
        best, least = np.where(error < least, scale, best), np.minimum(error, least)
    return best
