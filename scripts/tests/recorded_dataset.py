#!/usr/bin/env python3
"""The small dataset in scripts/tests/recorded, and how lerobot 0.6.1 is made to write it.

  .reference/bin/python scripts/tests/recorded_dataset.py scripts/tests/recorded

Frames are drawn so that their episode, place in it and camera can be told after lossy coding. One camera is a video, the
other's frames are in the parquet files, as lerobot keeps them with use_videos=False.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

FPS = 10
HEIGHT, WIDTH = 48, 64
FRONT, WRIST, STATE = "observation.images.front", "observation.images.wrist", "observation.state"
# Task and frames of each episode.
EPISODES = [("pick up the cube", 5), ("öffne die Schublade", 7), ("pick up the cube", 4)]


def frame(camera: str, episode: int, index: int) -> np.ndarray:
    """[HEIGHT, WIDTH, 3] u8: the left half tells the episode, the right one the place in it, blue the camera."""
    pixels = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:, : WIDTH // 2] = 40 + 60 * episode
    pixels[:, WIDTH // 2 :] = 30 + 30 * index
    pixels[..., 2] = 60 if camera == FRONT else 180
    return pixels


def state(episode: int, index: int) -> np.ndarray:
    """[6] f32."""
    return (np.arange(6) / 8 + episode - index / 16).astype(np.float32)


def write(root: Path, codec: str = "libsvtav1") -> None:
    """Has lerobot write the dataset to ``root``, which must not exist."""
    from lerobot.configs.video import RGBEncoderConfig
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    image = {"shape": (HEIGHT, WIDTH, 3), "names": ["height", "width", "channels"]}
    joints = {"dtype": "float32", "shape": (6,), "names": [f"joint_{i}" for i in range(6)]}
    features = {FRONT: image | {"dtype": "video"}, WRIST: image | {"dtype": "image"}, STATE: joints, "action": joints}
    dataset = LeRobotDataset.create("local/recorded", FPS, features, root, rgb_encoder=RGBEncoderConfig(vcodec=codec))
    for number, (task, length) in enumerate(EPISODES):
        for i in range(length):
            cameras = {camera: frame(camera, number, i) for camera in (FRONT, WRIST)}
            dataset.add_frame(cameras | {STATE: state(number, i), "action": state(number, i + 1), "task": task})
        dataset.save_episode()
    dataset.finalize()


if __name__ == "__main__":
    write(Path(sys.argv[1]))
