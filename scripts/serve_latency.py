#!/usr/bin/env python3
"""The time that `pi0-edge serve` adds to an inference: from a client's request to its answer, less the policy's own time in it.

    .clients/bin/python scripts/serve_latency.py models/pi0-tiny -n 1000

The policy's time is what it says itself in every answer (policy_timing.infer_ms), so each request is compared with itself. Two sizes of
frames, for all cameras of the bundle, packed by openpi's client and packed beforehand. The client's part, packing and sending, copies and
masks the frames; the server reads meanwhile. What is left is the rest of the server's and the network's.
"""
from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from openpi_client import msgpack_numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from serving import Served

PROJECT = Path(__file__).resolve().parents[1]
WARM_UP = 20


def measure(message, connection, n: int) -> tuple[np.ndarray, ...]:
    """Milliseconds that were added to each request, that the client took of these to pack and send the frames, and that the policy took."""
    added, client, policy = [], [], []
    for i in range(n + WARM_UP):
        begun = time.perf_counter()
        connection.send(message())
        sent = time.perf_counter()
        answer = msgpack_numpy.unpackb(connection.recv())
        total = (time.perf_counter() - begun) * 1e3
        if i >= WARM_UP:
            client.append((sent - begun) * 1e3)
            policy.append(answer["policy_timing"]["infer_ms"])
            added.append(total - policy[-1])
    return np.array(added), np.array(client), np.array(policy)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--program", type=Path, default=PROJECT / "target/release/pi0-edge")
    args = parser.parse_args()

    served = Served(args.program, args.bundle, "--no-spin")
    client = WebsocketClientPolicy("127.0.0.1", served.port)
    metadata = client.get_server_metadata()
    print("| frames | message | n | added p50 | p99 | of it the client's p50 | the rest p50 | p99 | policy p50 |\n|---|---|--:|--:|--:|--:|--:|--:|--:|")
    for side in (56, 224):
        frames = {name: np.full((side, side, 3), 90, np.uint8) for name in metadata["cameras"]}
        observation = frames | {"observation/state": np.zeros(metadata["state_dim"], np.float32), "prompt": "go"}
        packed = client._packer.pack(observation)
        for name, message in (("packed beforehand", lambda p=packed: p), ("packed by openpi-client", lambda o=observation: client._packer.pack(o))):
            added, own, policy = measure(message, client._ws, args.n)
            figures = [*np.percentile(added, (50, 99)), np.median(own), *np.percentile(added - own, (50, 99)), np.median(policy)]
            print(f"| {len(frames)} × {side}×{side}×3 u8 | {name} | {args.n} | " + " | ".join(f"{ms:.2f} ms" for ms in figures) + " |", flush=True)
    served.stop()


if __name__ == "__main__":
    main()
