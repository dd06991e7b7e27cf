#!/usr/bin/env python3
"""Writes one observation for each number of a checkpoint's cameras: frames of 640 x 480, a state, and the longest prompt.

usage: observations.py CHECKPOINT_DIR OUT_DIR; OUT_DIR/N has N cameras
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from exporter.processors import read_lerobot  # noqa: E402

# The tokenizer of made checkpoints has it in two pieces; the beginning of the text and the newline at its end are one each.
WORD, PIECES, AROUND = "pick", 2, 2


def write(checkpoint: Path, out: Path) -> None:
    config, processing = read_lerobot(checkpoint)
    words = (processing.max_tokens - AROUND) // PIECES
    random = np.random.default_rng(0)
    for count in range(1, len(config.cameras) + 1):
        directory = out / str(count)
        directory.mkdir(parents=True, exist_ok=True)
        images = {}
        for index, camera in enumerate(config.cameras[:count]):
            images[camera] = f"{index}.png"
            # Blocks of colour: noise by the pixel would make the decoder work for nothing.
            blocks = random.integers(0, 256, (12, 16, 3), np.uint8)
            Image.fromarray(blocks.repeat(40, 0).repeat(40, 1)).save(directory / images[camera])
        state = random.standard_normal(config.state_dim).round(4).tolist()
        observation = {"images": images, "state": state, "prompt": " ".join([WORD] * words)}
        (directory / "observation.json").write_text(json.dumps(observation, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__.splitlines()[-1])
    write(Path(sys.argv[1]), Path(sys.argv[2]))
