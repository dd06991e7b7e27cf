#!/usr/bin/env python3
"""Makes a small episode for a bundle: what a robot might have seen and where its joints were, for `pi0-edge replay`.

Every camera sees a ball that wanders over a background, and the state swings about the mean that the policy was trained
with. Made up, but the same each time. Needs nothing but Python 3.
"""

from __future__ import annotations

import argparse
import json
import math
import struct
import sys
import zlib
from pathlib import Path

EXAMPLES = """examples:
  python scripts/make_episode.py models/pi0-tiny episode
  python scripts/make_episode.py BUNDLE episode --seconds 10 --fps 30 --frame-size 240x320
"""


def make_episode(bundle: Path, directory: Path, seconds: float, fps: float, height: int, width: int, prompt: str) -> int:
    """Writes the episode; ``directory`` must not exist yet. Returns how many observations it has."""
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    cameras = [camera["name"] for camera in manifest["cameras"]]
    # The robot's own keys where the bundle renames them.
    robot_keys = {policy: robot for robot, policy in manifest["rename"].items()}
    centre, swing = _state_range(manifest["state"])
    directory.mkdir(parents=True)
    count = max(1, round(seconds * fps))
    observations = []
    for i in range(count):
        time, name = i / fps, f"{i:04}"
        (directory / name).mkdir()
        images = {}
        for c, camera in enumerate(cameras):
            file = camera.rpartition(".")[2] + ".png"
            _write_png(directory / name / file, width, height, _frame(width, height, time + c))
            images[robot_keys.get(camera, camera)] = file
        state = [m + s * math.sin(0.9 * time * (1 + 0.2 * j) + j) for j, (m, s) in enumerate(zip(centre, swing))]
        _write_json(directory / name / "observation.json", {"images": images, "state": state})
        observations.append({"time_s": round(time, 6), "path": name})
    _write_json(directory / "episode.json", {"prompt": prompt, "observations": observations})
    return count


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


def _write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    height, width = options.frame_size
    try:
        count = make_episode(options.bundle, options.out, options.seconds, options.fps, height, width, options.prompt)
    except FileExistsError:
        print(f"error: {options.out} exists already; give a directory that does not", file=sys.stderr)
        return 1
    except (OSError, ValueError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{count} observations in {options.out}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle whose cameras and state it is for")
    parser.add_argument("out", type=Path, metavar="OUT", help="directory to create")
    parser.add_argument("--seconds", type=_positive, default=3.0, help="length (default: 3)")
    parser.add_argument("--fps", type=_positive, default=15.0, help="observations per second (default: 15)")
    parser.add_argument("--frame-size", type=_extent, metavar="HxW", default=(72, 96), help="size of the frames (default: 72x96)")
    parser.add_argument("--prompt", default="pick up the red ball", help="the task")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e4:
        raise argparse.ArgumentTypeError("use a positive number")
    return value


def _extent(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return int(height), int(width)


if __name__ == "__main__":
    sys.exit(main())
