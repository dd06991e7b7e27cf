"""Makes up what a robot might have seen and where its joints were: the same each time."""

from __future__ import annotations

import json
import math
import struct
import zlib
from pathlib import Path

from .folder import observation_name, write_episode, write_observation


def make_up(bundle: Path, directory: Path, seconds: float, fps: float, height: int, width: int, prompt: str) -> int:
    """Writes an episode for the bundle's cameras and state; returns how many observations it has."""
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    cameras = [camera["name"] for camera in manifest["cameras"]]
    # The robot's own keys where the bundle renames them.
    robot_keys = {policy: robot for robot, policy in manifest["rename"].items()}
    centre, swing = _state_range(manifest["state"])
    times = [i / fps for i in range(max(1, round(seconds * fps)))]
    for i, time in enumerate(times):
        folder = directory / observation_name(i)
        folder.mkdir()
        images = {}
        for c, camera in enumerate(cameras):
            file = camera.rpartition(".")[2] + ".png"
            _write_png(folder / file, width, height, _frame(width, height, time + c))
            images[robot_keys.get(camera, camera)] = file
        state = [m + s * math.sin(0.9 * time * (1 + 0.2 * j) + j) for j, (m, s) in enumerate(zip(centre, swing))]
        write_observation(folder, images, state)
    write_episode(directory, prompt, times)
    return len(times)


def _state_range(state: dict) -> tuple[list[float], list[float]]:
    """Where the state lies and how far it swings, as far as the statistics tell."""
    rule, dim = state["normalization"], state["dim"]
    if "mean" in rule:
        return rule["mean"], rule["std"]
    low, high = rule.get("min", rule.get("q01")), rule.get("max", rule.get("q99"))
    if low is None or high is None:
        return [0.0] * dim, [0.5] * dim
    return [(a + b) / 2 for a, b in zip(low, high)], [(b - a) / 2 for a, b in zip(low, high)]


def _frame(width: int, height: int, time: float) -> bytes:
    """One RGB frame, row after row."""
    x, y = width * (0.5 + 0.35 * math.sin(1.3 * time)), height * (0.5 + 0.35 * math.cos(0.8 * time))
    radius = (height / 6) ** 2
    rows = bytearray()
    for v in range(height):
        for u in range(width):
            inside = (u - x) ** 2 + (v - y) ** 2 < radius
            rows += bytes((210, 60, 40)) if inside else bytes((60 + 120 * u // width, 80 + 90 * v // height, 110))
    return bytes(rows)


def _write_png(path: Path, width: int, height: int, rgb: bytes) -> None:
    lines = b"".join(b"\0" + rgb[v * width * 3 : (v + 1) * width * 3] for v in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")
    )
