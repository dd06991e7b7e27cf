"""A camera's frame in the layout that its driver has it in."""

from __future__ import annotations

from ctypes import byref
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ._abi import CCameraFrame, ErrorText
from ._arrays import Pixels
from ._config import number
from ._library import check, load

# The last axis of each format's array, after (height, width); none where a pixel is one value.
_VALUES = {"rgb": (3,), "bgr": (3,), "rgba": (4,), "bgra": (4,), "grey": (), "yuyv": (2,), "uyvy": (2,), "nv12": ()}


@dataclass(frozen=True, eq=False)
class CameraFrame:
    """A camera's frame as its driver has it, for `ObservationWriter.publish` in place of an array of RGB.

    Attributes:
        pixels: uint8. (height, width, 3) for rgb and bgr, (height, width, 4) for rgba and bgra, (height, width, 2) for yuyv
            (also called YUY2) and uyvy, (height, width) for grey and for the Y of nv12. Rows may be apart.
        format: The order of values; the fourth of rgba and bgra is left out.
        chroma: The Cb and Cr of nv12: uint8, (height / 2, width). A frame in one array a, as OpenCV has it, is
            `CameraFrame(a[:height], "nv12", a[height:])`.
        yuv: The matrix and range that Y, Cb and Cr were made with: USB cameras have bt601_limited unless they say otherwise,
            JPEG has bt601_full, video of 720 rows and more bt709_limited.
    """

    pixels: Pixels
    format: Literal["rgb", "bgr", "rgba", "bgra", "grey", "yuyv", "uyvy", "nv12"] = "rgb"
    chroma: Pixels | None = None
    yuv: Literal["bt601_limited", "bt601_full", "bt709_limited", "bt709_full"] = "bt601_limited"

    def to_rgb(self) -> Pixels:
        """Returns the frame as RGB, (height, width, 3), for `Policy.infer`.

        Raises:
            Pi0Error: A side is odd where it must be even.
            TypeError, ValueError: An array is not of the dtype or shape it must have, or the format has no such name.
        """
        frame, error = self._c("frame"), ErrorText()
        rgb = np.empty((frame.height, frame.width, 3), np.uint8)
        check(load().pi0_camera_frame_to_rgb(byref(frame), rgb.ctypes.data, rgb.size, byref(error)), "converting a frame", error)
        return rgb

    def _c(self, what: str) -> CCameraFrame:
        """Returns the frame as C has it; it borrows the arrays."""
        frame = CCameraFrame(format=number("format", self.format), yuv=number("yuv", self.yuv))
        values = _VALUES[self.format]
        frame.data, frame.data_size, frame.row_bytes = _plane(what, self.pixels, (None, None, *values))
        frame.height, frame.width = self.pixels.shape[:2]
        if self.format == "nv12":
            half = (frame.height // 2, frame.width)
            frame.chroma, frame.chroma_size, frame.chroma_row_bytes = _plane(f"{what}, chroma", self.chroma, half)
        elif self.chroma is not None:
            raise ValueError(f"{what}: {self.format} has no chroma of its own")
        return frame


def _plane(what: str, array: object, shape: tuple[int | None, ...]) -> tuple[int, int, int]:
    """Returns the address of a plane, its bytes and those from row to row.

    Raises:
        TypeError: It is no numpy array of uint8.
        ValueError: Its shape is another one, or the pixels of a row have gaps.
    """
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
        given = f"dtype {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(f"{what}: {given}; a numpy array of uint8 is taken")
    fits = len(shape) == array.ndim and all(n >= 1 if want is None else n == want for n, want in zip(array.shape, shape))
    row = array[:1].size
    in_rows = fits and array[0].flags.c_contiguous and (len(array) == 1 or array.strides[0] >= row)
    if not in_rows:
        words = ", ".join(name if n is None else str(n) for name, n in zip(("height", "width"), shape)) + "".join(f", {n}" for n in shape[2:])
        gaps = ", with the bytes of a row side by side, rows downwards: copy it" if fits else ""
        raise ValueError(f"{what}: shape {array.shape}; ({words}) is taken{gaps}")
    stride = row if len(array) == 1 else array.strides[0]
    return array.ctypes.data, (len(array) - 1) * stride + row, stride
