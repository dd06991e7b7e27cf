#!/usr/bin/env python3
"""A robot's program on openpi's client. For pi0-edge, the host's address is what changes.

    pip install openpi-client==0.1.2
    pi0-edge serve models/pi0-tiny &
    examples/python/robot.py --host 127.0.0.1 --port 8000
"""
import argparse

import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()

    policy = WebsocketClientPolicy(args.host, args.port)
    metadata = policy.get_server_metadata()
    # A robot takes its cameras' frames and its joints' positions here.
    observation = {camera: np.zeros((224, 224, 3), np.uint8) for camera in metadata["required_cameras"]}
    observation["observation/state"] = np.zeros(metadata["state_dim"], np.float32)
    observation["prompt"] = "pick up the cube"
    for _ in range(3):
        answer = policy.infer(observation)
        print(f"actions {answer['actions'].shape} in {answer['server_timing']['infer_ms']:.1f} ms")


if __name__ == "__main__":
    main()
