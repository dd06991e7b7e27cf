"""Writes the frames that the command line's tests read, each beside the bytes that Pillow makes of it."""

from __future__ import annotations

import argparse
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 17, 13


def picture() -> np.ndarray:
    """Slopes and an edge, [HEIGHT, WIDTH, 3] bytes."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([x * 15, 255 - y * 19, np.where(x + y > 14, 230, 20)], -1).astype(np.uint8)


def png(kind: int, samples: np.ndarray) -> bytes:
    """A PNG of 16-bit ``samples`` [HEIGHT, WIDTH, channels], which Pillow does not write itself; ``kind``: PNG's colour type."""
    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    header = WIDTH.to_bytes(4, "big") + HEIGHT.to_bytes(4, "big") + bytes([16, kind, 0, 0, 0])
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def write(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    rgb = picture()
    image = Image.fromarray(rgb)
    alpha = Image.fromarray(rgb[..., 0])
    image.save(directory / "rgb.png")
    image.convert("L").save(directory / "grey.png")
    image.convert("1").save(directory / "one-bit.png")
    image.quantize(4).save(directory / "palette.png", bits=2)
    image.quantize(16).save(directory / "palette-transparent.png", transparency=bytes(range(0, 256, 16)))
    image.convert("L").save(directory / "grey-transparent.png", transparency=100)
    for name, whole in (("rgba.png", image), ("grey-alpha.png", image.convert("L"))):
        whole = whole.copy()
        whole.putalpha(alpha)
        whole.save(directory / name)
    wide = np.concatenate([rgb, rgb[..., ::-1]], -1).astype(np.uint16) * 250 + 200
    for name, kind, channels in (("grey16", 0, 1), ("rgb16", 2, 3), ("grey-alpha16", 4, 2), ("rgba16", 6, 4)):
        samples = wide[..., :channels].copy()
        if name == "grey16":
            samples[0, :4, 0] = 0, 1, 255, 256
        (directory / f"{name}.png").write_bytes(png(kind, samples))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, whole, options in (
        ("jpeg", image, {"subsampling": 0}),
        ("jpeg-420", image, {"subsampling": 2}),
        ("jpeg-422", image, {"subsampling": 1}),
        ("jpeg-progressive", image, {"progressive": True}),
        ("jpeg-restarts", image, {"restart_marker_blocks": 1}),
        ("jpeg-grey", image.convert("L"), {}),
        ("jpeg-cmyk", image.convert("CMYK"), {}),
        ("jpeg-rgb", image, {"keep_rgb": True}),
        ("jpeg-turned", image, {"exif": exif}),
    ):
        whole.save(directory / f"{name}.jpg", quality=90, **options)
    for file in sorted(directory.glob("*.[pj][np]g")):
        file.with_suffix(".rgb").write_bytes(read(file))


def read(file: Path) -> bytes:
    """The frame as Pillow reads it, and lerobot with it: [HEIGHT, WIDTH, 3] bytes."""
    with Image.open(file) as image:
        return image.convert("RGB").tobytes()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("directory", type=Path)
    write(arguments.parse_args().directory)
