"""openpi's client from the registry, unchanged, against `serve`: it gets what `run` computes."""
from __future__ import annotations

import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import websockets.exceptions
import websockets.sync.client
from conftest import PROJECT, golden, run
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.websocket_client_policy import WebsocketClientPolicy

BUNDLES = ["pi0-tiny", "pi05-tiny", "pi0-openpi"]


def client(served, **options) -> WebsocketClientPolicy:
    return WebsocketClientPolicy("127.0.0.1", served.port, **options)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_actions_are_those_of_run(bundle, serve, program, tmp_path):
    directory, observation = golden(bundle)
    policy = client(serve(bundle, "--seed", "40"))
    metadata = policy.get_server_metadata()
    assert metadata["protocol"] == "openpi.websocket_policy" and metadata["cameras"]
    shape = (metadata["action_horizon"], metadata["action_dim"])
    for seed in (40, 41):
        # No word of a seed, as openpi's robots have it: the server counts.
        answer = policy.infer(observation)
        want = run(program, bundle, directory, tmp_path / "actions.npy", "--seed", str(seed))
        assert answer["seed"] == seed and answer["num_steps"] == metadata["num_steps"]
        assert answer["actions"].shape == shape and answer["actions"].dtype == np.float32
        np.testing.assert_allclose(answer["actions"], want, rtol=0, atol=1e-6)
    assert answer["server_timing"]["prev_total_ms"] > 0 and answer["policy_timing"]["infer_ms"] > 0
    # One array alone: openpi's broker slices all there are.
    arrays = [key for key, value in answer.items() if isinstance(value, np.ndarray)]
    assert arrays == ["actions"]


def test_noise_steps_and_the_rest_of_a_chunk_are_those_of_run(serve, program, tmp_path):
    directory, observation = golden("pi0-tiny")
    policy = client(serve("pi0-tiny"))
    noise = np.random.default_rng(1).standard_normal((10, 32)).astype(np.float32)
    np.save(tmp_path / "noise.npy", noise)
    want = run(program, "pi0-tiny", directory, tmp_path / "actions.npy", "--noise", tmp_path / "noise.npy",
               "--num-steps", "4")
    got = policy.infer(observation | {"noise": noise[None], "num_steps": np.int64(4)})["actions"]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)

    rest = want[3:]
    np.save(tmp_path / "rest.npy", rest)
    guided = run(program, "pi0-tiny", directory, tmp_path / "actions.npy", "--seed", "7", "--previous",
                 tmp_path / "rest.npy", "--inference-delay", "2", "--execution-horizon", "6")
    request = {"seed": 7, "prev_chunk_left_over": rest.astype(np.float64), "inference_delay": 2, "execution_horizon": 6}
    np.testing.assert_allclose(policy.infer(observation | request)["actions"], guided, rtol=0, atol=1e-6)


def test_a_bad_observation_leaves_the_connection_usable(serve):
    _, observation = golden("pi0-tiny")
    policy = client(serve("pi0-tiny"))
    want = policy.infer(observation | {"seed": 3})["actions"]
    for wrong, words in [
        ({"observation/state": np.zeros(3, np.float32)}, "state has 3 entries"),
        ({"observation/state": np.full(6, np.nan, np.float32)}, "not run on it"),
        ({"observation.images.base": np.zeros((4, 4, 4), np.uint8)}, "height, width, 3"),
        ({"observation.images.nobodys": np.zeros((4, 4, 3), np.uint8)}, "no camera takes"),
        ({"num_steps": 0}, "steps"),
    ]:
        with pytest.raises(RuntimeError, match=words):
            policy.infer(observation | wrong)
        np.testing.assert_array_equal(policy.infer(observation | {"seed": 3})["actions"], want)


def test_a_broker_hands_out_one_action_after_the_other(serve):
    _, observation = golden("pi0-tiny")
    policy = client(serve("pi0-tiny"))
    chunk = policy.infer(observation | {"seed": 0})["actions"]
    broker = ActionChunkBroker(policy, action_horizon=4)
    for row in range(4):
        np.testing.assert_array_equal(broker.infer(observation | {"seed": 0})["actions"], chunk[row])


def test_a_key_is_wanted_where_there_is_one(serve, tmp_path):
    (tmp_path / "key").write_text("0123456789abcdef\n")
    served = serve("pi0-tiny", "--api-key-file", str(tmp_path / "key"))
    _, observation = golden("pi0-tiny")
    assert client(served, api_key="0123456789abcdef").infer(observation)["actions"].size
    for key in (None, "0123456789abcdeF"):
        with pytest.raises(websockets.exceptions.InvalidStatus, match="401"):
            client(served, api_key=key)


def test_the_example_changes_the_host_alone(serve):
    served = serve("pi0-tiny")
    example = PROJECT / "examples/python/robot.py"
    result = subprocess.run([sys.executable, example, "--host", "127.0.0.1", "--port", str(served.port)],
                            capture_output=True, text=True)
    assert result.returncode == 0 and "(10, 7)" in result.stdout, result.stdout + result.stderr


def test_a_stopping_server_closes_and_ends_well(serve):
    served = serve("pi0-tiny")
    with websockets.sync.client.connect(served.uri) as connection:
        connection.recv()
        assert served.stop() == 0
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            connection.recv()
        assert closed.value.rcvd.code == 1001
    assert "chunks" in served.log() and "panicked" not in served.log()


def test_addresses_that_cannot_be(program):
    def serve(*options):
        command = [program, "serve", PROJECT / "models/pi0-tiny", *options]
        result = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"RUST_LOG": "warn"})
        return result.returncode, result.stderr

    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, said = serve("--listen", f"127.0.0.1:{taken.getsockname()[1]}")
        assert status == 1 and "cannot listen on 127.0.0.1" in said
    status, said = serve("--listen", "0.0.0.0:0")
    assert status == 2 and "--api-key-file is needed" in said
    status, said = serve("--listen", "nowhere")
    assert status == 2 and "HOST:PORT" in said
