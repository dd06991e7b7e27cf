"""Writes what Pillow makes of frames of many sizes, for tests/observation/pillow.rs.

  .reference/bin/python scripts/tests_reference/pillow_sizes.py > tests/observation/pillow_sizes.txt
  .reference/bin/python scripts/tests_reference/pillow_sizes.py --count 5000 --seed 1 > /tmp/sizes.txt
  PI0_PILLOW_SIZES=/tmp/sizes.txt cargo test --test observation pillow

One line a frame: its height and width, those of the view, and the first half of the SHA-256 of the view's bytes
(rows of RGB pixels).
"""

import argparse
import hashlib

import numpy as np
from PIL import Image

VIEWS = [(224, 224)] * 5 + [(56, 56), (56, 84), (28, 42), (40, 33), (112, 112)]
CAMERAS = [
    (480, 640), (640, 480), (720, 1280), (1080, 1920), (376, 672), (240, 320), (600, 800), (800, 1280), (480, 848),
    (180, 320), (100, 116), (128, 128), (256, 256), (224, 224), (225, 225), (223, 223), (448, 448), (1, 1), (2, 2),
    (1, 7), (150, 2), (932, 6), (201, 2), (1616, 16), (301, 3), (33, 57), (7, 5), (1200, 1601), (1440, 2560), (2160, 3840),
]  # fmt: skip


def frame(height, width):
    """Noise that is the same wherever it is made."""
    x = np.arange(height * width * 3, dtype=np.uint32) * np.uint32(2654435761) + np.uint32(height * 1000 + width)
    x ^= x >> 15
    x *= np.uint32(2246822519)
    x ^= x >> 13
    return (x >> 24).astype(np.uint8).reshape(height, width, 3)


def resized_with_pad(pixels, view):
    """The view as openpi's client makes it; None where nothing is left of the frame's short side."""
    height, width = view
    if pixels.shape[:2] == view:
        return pixels
    ratio = max(pixels.shape[1] / width, pixels.shape[0] / height)
    size = int(pixels.shape[1] / ratio), int(pixels.shape[0] / ratio)
    if 0 in size:
        return None
    view = Image.new("RGB", (width, height))
    view.paste(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR), ((width - size[0]) // 2, (height - size[1]) // 2))
    return np.array(view)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=300, metavar="N", help="frames of random sizes, on top of cameras' (default: 300)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random = np.random.default_rng(options.seed)
    sizes = [(camera, (224, 224)) for camera in CAMERAS]
    for _ in range(options.count):
        longest = int(random.choice([12, 80, 300, 1000]))
        source = tuple(int(side) for side in random.integers(1, longest, 2))
        sizes.append((source, VIEWS[random.integers(len(VIEWS))]))
    for source, view in sizes:
        pixels = resized_with_pad(frame(*source), view)
        if pixels is not None:
            print(*source, *view, hashlib.sha256(pixels.tobytes()).hexdigest()[:32])


if __name__ == "__main__":
    main()
