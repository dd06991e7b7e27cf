#!/usr/bin/env python3
"""Measures what Python adds to the C call that computes a chunk, and what a read of the controller takes.

    python_latency.py [BUNDLE] [--frame N] [--runs N]

The call's own time is `timing().total_ns`, from the call to the chunk as the library sees it; what the caller waits for
besides is what Python adds. Prints p50 and p99 in microseconds.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "python/pi0_edge/src"))
os.environ.setdefault("PI0_EDGE_LIBRARY", str(ROOT / "target/release/libpi0_edge.so"))

from pi0_edge import Policy, Runtime, RuntimeConfig, ThreadConfig  # noqa: E402


def shown(what: str, nanoseconds: list[int]) -> None:
    p50, p99 = np.percentile(nanoseconds, [50, 99]) / 1e3
    print(f"{what:44} n {len(nanoseconds):6}   p50 {p50:8.1f} us   p99 {p99:8.1f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("bundle", nargs="?", default=str(ROOT / "models/pi0-tiny"))
    parser.add_argument("--frame", type=int, default=224, help="height and width of the cameras' frames (default: 224)")
    parser.add_argument("--runs", type=int, default=1000)
    chosen = parser.parse_args()
    random = np.random.default_rng(0)
    with Policy.load(chosen.bundle, threads=1) as policy:
        info, cameras = policy.info, [camera.name for camera in policy.cameras]
        images = {name: random.integers(0, 256, (chosen.frame, chosen.frame, 3), np.uint8) for name in cameras}
        state, out = np.zeros(info.state_dim, np.float32), np.empty((info.action_horizon, info.action_dim), np.float32)
        added, total = [], []
        for run in range(chosen.runs + 20):
            begun = time.perf_counter_ns()
            policy.infer(images, state, "pick up the cube", seed=run, num_steps=1, out=out)
            took = time.perf_counter_ns() - begun
            if run >= 20:
                added.append(took - policy.timing().total_ns)
                total.append(took)
        shown(f"infer, {len(cameras)} frames of {chosen.frame} x {chosen.frame}: in all", total)
        shown("  of it added by Python", added)
        config = RuntimeConfig(
            prompt="pick up the cube", replan="period", replan_period_ns=10**9, max_frame_width=chosen.frame, max_frame_height=chosen.frame,
            max_age_ns=10**11, hold_after_ns=10**11 + 1, thread=ThreadConfig(realtime="off", lock_memory="off"),
        )
        with Runtime.start(policy, config) as runtime:
            action, reads, publications = np.empty(info.action_dim, np.float32), [], []
            for _ in range(chosen.runs):
                begun = time.perf_counter_ns()
                runtime.writer.publish(images, state, time.monotonic_ns())
                publications.append(time.perf_counter_ns() - begun)
                begun = time.perf_counter_ns()
                runtime.controller.read(action)
                reads.append(time.perf_counter_ns() - begun)
        shown("publish, the frames' copies included", publications)
        shown("read", reads)


if __name__ == "__main__":
    main()
