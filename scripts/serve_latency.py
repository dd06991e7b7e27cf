#!/usr/bin/env python3
"""The time that `pi0-edge serve` adds to an inference: from a client's request to its answer, less the policy's own time in it.

    .clients/bin/python scripts/serve_latency.py models/pi0-tiny -n 1000

The policy's time is what it says itself in every answer (policy_timing.infer_ms), so each request is compared with itself. Two sizes of
frames, for all cameras of the bundle; openpi's client as it is, and a plain websocket with a message packed beforehand, which leaves out
what the client's packing and unpacking cost.
"""
from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import websockets.sync.client
from openpi_client import msgpack_numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from serving import Served

PROJECT = Path(__file__).resolve().parents[1]
WARM_UP = 20


def measure(ask, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Milliseconds that were added to each request, and that the policy took."""
    added, policy = [], []
    for i in range(n + WARM_UP):
        begun = time.perf_counter()
        answer = ask()
        total = (time.perf_counter() - begun) * 1e3
        if i >= WARM_UP:
            answer = msgpack_numpy.unpackb(answer) if isinstance(answer, bytes) else answer
            policy.append(answer["policy_timing"]["infer_ms"])
            added.append(total - policy[-1])
    return np.array(added), np.array(policy)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--program", type=Path, default=PROJECT / "target/release/pi0-edge")
    args = parser.parse_args()

    served = Served(args.program, args.bundle, "--no-spin")
    client = WebsocketClientPolicy("127.0.0.1", served.port)
    metadata = client.get_server_metadata()
    connection = websockets.sync.client.connect(served.uri, compression=None, max_size=None)
    connection.recv()
    print("| frames | client | n | added p50 | p99 | policy p50 |\n|---|---|--:|--:|--:|--:|")
    for side in (56, 224):
        frames = {name: np.full((side, side, 3), 90, np.uint8) for name in metadata["cameras"]}
        observation = frames | {"observation/state": np.zeros(metadata["state_dim"], np.float32), "prompt": "go"}
        packed = msgpack_numpy.packb(observation)

        def plain(packed: bytes = packed) -> bytes:
            connection.send(packed)
            return connection.recv()

        for name, ask in (("plain websocket", plain), ("openpi-client", lambda o=observation: client.infer(o))):
            added, policy = measure(ask, args.n)
            print(f"| {len(frames)} × {side}×{side}×3 u8 | {name} | {args.n} | {np.percentile(added, 50):.3f} ms "
                  f"| {np.percentile(added, 99):.3f} ms | {np.percentile(policy, 50):.2f} ms |", flush=True)
    served.stop()


if __name__ == "__main__":
    main()
