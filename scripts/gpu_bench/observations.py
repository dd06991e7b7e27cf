#!/usr/bin/env python3
"""Writes observations of a policy for each number of its cameras: frames of 640 x 480, a state, and the longest prompt.

usage: observations.py OUT_DIR --policy pi0|pi05 --size full|small|tiny [--cameras N]

OUT_DIR/N has N cameras. Beside them, for lerobot with random weights: config.json, and shapes.json with every weight's shape.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from exporter.synthetic.processors import write_config  # noqa: E402
from exporter.synthetic.spec import SIZES, CheckpointSpec, make_spec  # noqa: E402
from exporter.synthetic.tensors import checkpoint_tensors  # noqa: E402

# The tokenizer of made checkpoints has it in two pieces; the beginning of the text and the newline at its end are one each.
WORD, PIECES, AROUND = "pick", 2, 2


def write(out: Path, spec: CheckpointSpec) -> None:
    # PI0.5 writes the state into the prompt: a short task leaves room for it.
    words = 2 if spec.policy == "pi05" else (spec.max_tokens - AROUND) // PIECES
    random = np.random.default_rng(0)
    for count in range(1, len(spec.cameras) + 1):
        directory = out / str(count)
        directory.mkdir(parents=True, exist_ok=True)
        images = {}
        for index, camera in enumerate(spec.cameras[:count]):
            images[camera] = f"{index}.png"
            # Blocks of colour: noise by the pixel would make the decoder work for nothing.
            blocks = random.integers(0, 256, (12, 16, 3), np.uint8)
            Image.fromarray(blocks.repeat(40, 0).repeat(40, 1)).save(directory / images[camera])
        state = random.standard_normal(spec.state_dim).round(4).tolist()
        observation = {"images": images, "state": state, "prompt": " ".join([WORD] * words)}
        (directory / "observation.json").write_text(json.dumps(observation, indent=1) + "\n")
    write_config(out, spec)
    shapes = {tensor.name: tensor.shape for tensor in checkpoint_tensors(spec)}
    (out / "shapes.json").write_text(json.dumps(shapes) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("--policy", choices=("pi0", "pi05"), default="pi0")
    parser.add_argument("--size", choices=list(SIZES), default="full")
    parser.add_argument("--cameras", type=int, metavar="N", help="N cameras with the names of make_checkpoint.py (default: the size's own)")
    options = parser.parse_args()
    cameras = tuple(f"observation.images.camera_{i}" for i in range(options.cameras)) if options.cameras else None
    write(options.out, make_spec(options.size, policy=options.policy, cameras=cameras))
