#!/usr/bin/env python3
"""Clients of `pi0-edge serve` that come and go as real ones do, for a long time: counts wrong answers, and looks at the server's memory.

    .clients/bin/python scripts/serve_soak.py models/pi0-tiny --minutes 30 --clients 4

Each client asks for chunks whose actions are known and, at random, leaves: with a goodbye, without one, or in the middle of a message.
Some requests are wrong on purpose and must be answered in words. Exit status 1: an answer was wrong or missing, or the server did not
end well.
"""
from __future__ import annotations

import argparse
import json
import logging
import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import websockets.exceptions
from openpi_client import msgpack_numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from serving import Served

PROJECT = Path(__file__).resolve().parents[1]
SEEDS = 16


def observation(metadata: dict) -> dict:
    """A made-up one, always the same."""
    numbers = np.random.default_rng(0)
    frames = {name: numbers.integers(0, 256, (224, 224, 3), dtype=np.uint8) for name in metadata["cameras"]}
    return frames | {"observation/state": np.zeros(metadata["state_dim"], np.float32), "prompt": "pick up the cube"}


class Clients:
    def __init__(self, served: Served) -> None:
        self.served = served
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        policy = self.connect()
        self.observation = observation(policy.get_server_metadata())
        self.known = [policy.infer(self.observation | {"seed": seed})["actions"] for seed in range(SEEDS)]
        policy._ws.close()

    def connect(self) -> WebsocketClientPolicy:
        return WebsocketClientPolicy("127.0.0.1", self.served.port)

    def ask(self, policy: WebsocketClientPolicy, numbers: random.Random) -> None:
        """One request and the check of its answer."""
        if numbers.random() < 0.1:
            try:
                policy.infer(self.observation | {"observation/state": np.zeros(1, np.float32)})
                self.faults.append("a wrong observation was answered with a chunk")
            except RuntimeError:
                self.counts["refused"] += 1
            return
        seed = numbers.randrange(SEEDS)
        if np.array_equal(policy.infer(self.observation | {"seed": seed})["actions"], self.known[seed]):
            self.counts["right"] += 1
        else:
            self.faults.append(f"the chunk of seed {seed} is not what it was")

    def leave(self, policy: WebsocketClientPolicy, numbers: random.Random) -> None:
        """One of the ways in which clients go."""
        way = numbers.choice(["goodbye", "reset", "asked", "in the middle"])
        self.counts[f"left: {way}"] += 1
        if way == "goodbye":
            policy._ws.close()
            return
        if way == "asked":
            policy._ws.send(msgpack_numpy.packb(self.observation))
        elif way == "in the middle":
            # A frame's header that promises much, and a little of it.
            policy._ws.socket.sendall(b"\x82\xff" + struct.pack(">Q", 1 << 20) + bytes(4 + 1000))
        policy._ws.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        policy._ws.socket.close()

    def run(self, number: int, until: float) -> None:
        numbers = random.Random(number)
        while time.monotonic() < until and len(self.faults) < 10:
            try:
                policy = self.connect()
                for _ in range(numbers.randrange(1, 60)):
                    self.ask(policy, numbers)
                    time.sleep(numbers.random() * 0.02)
                self.leave(policy, numbers)
            except (OSError, websockets.exceptions.WebSocketException, TimeoutError) as e:
                self.faults.append(f"client {number}: {type(e).__name__}: {e}")


def slope(samples: list[dict], name: str) -> float:
    """KiB, threads or files an hour, by least squares; the first tenth is settling in."""
    settled = samples[len(samples) // 10:]
    return float(np.polyfit([s["s"] for s in settled], [s[name] for s in settled], 1)[0] * 3600) if len(settled) > 2 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--program", type=Path, default=PROJECT / "target/release/pi0-edge")
    args = parser.parse_args()

    # The client's library tells of every connection that is cut off under it, which is what is done here.
    logging.disable(logging.CRITICAL)
    served = Served(args.program, args.bundle, "--no-spin", "--metrics", "300")
    clients = Clients(served)
    begun = time.monotonic()
    until = begun + args.minutes * 60
    threads = [threading.Thread(target=clients.run, args=(n, until), daemon=True) for n in range(args.clients)]
    for thread in threads:
        thread.start()
    samples = []
    while time.monotonic() < until and any(thread.is_alive() for thread in threads):
        samples.append(served.status() | {"s": time.monotonic() - begun})
        time.sleep(min(5.0, args.minutes * 6))
    for thread in threads:
        thread.join(timeout=120)
        if thread.is_alive():
            clients.faults.append("a client was never answered")
    time.sleep(1)
    samples.append(served.status() | {"s": time.monotonic() - begun})
    status = served.stop()
    if status != 0 or "panicked" in served.log():
        clients.faults.append(f"the server ended with {status}:\n{served.log()}")
    figures = {name: {"first": samples[0][name], "last": samples[-1][name], "most": max(s[name] for s in samples),
                      "an_hour": round(slope(samples, name), 1)} for name in ("VmRSS", "RssAnon", "Threads", "files")}
    print(json.dumps({"minutes": round((samples[-1]["s"]) / 60, 2), "clients": args.clients, "counts": clients.counts,
                      "faults": clients.faults, "samples": len(samples), "server": figures}, indent=1))
    print(served.log().splitlines()[-1], file=sys.stderr)
    sys.exit(1 if clients.faults else 0)


if __name__ == "__main__":
    main()
