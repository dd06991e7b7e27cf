"""Arrays on their way to the library: checked, and copied only where the layout asks for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


def floats(what: str, values: npt.ArrayLike, shape: tuple[int | None, ...]) -> Floats:
    """Returns the values as contiguous float32: the array itself where it is that, else a copy.

    Raises:
        TypeError: They are not real numbers.
        ValueError: Their shape is another one; None stands for any length from 1.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{what}: dtype {array.dtype}; real numbers are taken, float32 without a copy")
    fits = len(shape) == array.ndim and all(n >= 1 if want is None else n == want for n, want in zip(array.shape, shape))
    if not fits:
        words = ", ".join("n" if n is None else str(n) for n in shape)
        raise ValueError(f"{what}: shape {array.shape}; ({words}{',' if len(shape) == 1 else ''}) is taken")
    return np.ascontiguousarray(array, dtype=np.float32)


def frame(camera: str, pixels: Any) -> Pixels:
    """Returns a camera's pixels after looking at them; rows may be apart, the pixels of a row may not.

    Raises:
        TypeError: They are no numpy array of uint8.
        ValueError: Their shape is not (height, width, 3).
    """
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        given = f"dtype {pixels.dtype}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise TypeError(f"camera {camera}: {given}; a numpy array of uint8 is taken: RGB, 0 to 255")
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"camera {camera}: shape {pixels.shape}; (height, width, 3) is taken: RGB, rows from the top")
    return pixels


def output(what: str, array: Floats | None, shape: tuple[int, ...]) -> Floats:
    """Returns the array to write to: a new one where none is given.

    Raises:
        TypeError: It is no numpy array of float32.
        ValueError: Its shape is another one, it has gaps, or it cannot be written to.
    """
    if array is None:
        return np.empty(shape, np.float32)
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        given = f"dtype {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(f"{what}: {given}; a numpy array of float32 is taken")
    if array.shape != shape or not array.flags.c_contiguous or not array.flags.writeable:
        raise ValueError(f"{what}: shape {array.shape}; a writeable array of shape {shape} without gaps is taken")
    return array


def utf8(what: str, text: str | None) -> bytes | None:
    """Returns text for the library, None as None.

    Raises:
        ValueError: It has a NUL in it, which C would take for its end.
    """
    if text is None:
        return None
    if "\0" in text:
        raise ValueError(f"{what}: a NUL character in {text!r}")
    return text.encode()
