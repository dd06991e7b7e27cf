"""Recordings, read back by the programs of others: the `mcap` package and rosbags, with the types that are in the file."""
from __future__ import annotations

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import PROJECT
from mcap.reader import make_reader
from PIL import Image
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

TYPES = {
    "/joint_states": "sensor_msgs/msg/JointState",
    "/pi0_edge/action": "sensor_msgs/msg/JointState",
    "/pi0_edge/age": "std_msgs/msg/Float64",
    "/pi0_edge/status": "std_msgs/msg/UInt8",
    "/pi0_edge/chunk": "trajectory_msgs/msg/JointTrajectory",
    "/camera/base/compressed": "sensor_msgs/msg/CompressedImage",
    "/camera/wrist/compressed": "sensor_msgs/msg/CompressedImage",
    "/camera/side/compressed": "sensor_msgs/msg/CompressedImage",
}


def read(path) -> dict[str, list]:
    """Messages by topic, each with its time. The types in the file must be those of ROS 2, and read the same."""
    own, ros = get_typestore(Stores.EMPTY), get_typestore(Stores.ROS2_HUMBLE)
    messages: dict[str, list] = {}
    with path.open("rb") as file:
        for schema, channel, message in make_reader(file, validate_crcs=True).iter_messages():
            assert (schema.encoding, channel.message_encoding) == ("ros2msg", "cdr")
            if schema.name not in own.fielddefs:
                new = get_types_from_msg(schema.data.decode(), schema.name)
                own.register({name: fields for name, fields in new.items() if name not in own.fielddefs})
            decoded = own.deserialize_cdr(message.data, schema.name)
            # Not a byte is left over or missing, and ROS's own definition says the same.
            assert bytes(ros.serialize_cdr(ros.deserialize_cdr(message.data, schema.name), schema.name)) == message.data
            messages.setdefault(channel.topic, []).append((message.log_time, decoded, schema.name))
    return messages


@pytest.fixture(scope="module")
def replayed(program, tmp_path_factory):
    """A replay of two seconds: what it says, its recording and its flight record."""
    directory = tmp_path_factory.mktemp("replay")
    episode, recording, record = (directory / name for name in ("episode", "run.mcap", "flight.json"))
    bundle = PROJECT / "models/pi0-tiny"
    subprocess.run([sys.executable, PROJECT / "scripts/make_episode.py", bundle, "--output", episode], check=True)
    result = subprocess.run(
        [program, "replay", bundle, "--episode", episode, "--rate", "50", "--duration", "2", "--threads", "1", "--realtime", "off",
         "--mcap", recording, "--flight-record", record, "--format", "json"], check=True, stdout=subprocess.PIPE)
    return json.loads(result.stdout), recording, record


def stamp(header) -> int:
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


def test_a_replay_is_recorded_while_it_happens(replayed):
    said, recording, _ = replayed
    messages = read(recording)
    assert {topic: of[0][2] for topic, of in messages.items()} == TYPES
    counts = said["mcap"]
    assert counts["ticks"] > 0 and counts["images"] == 3 * len(messages["/joint_states"])
    assert len(messages["/pi0_edge/status"]) == counts["ticks"] and len(messages["/pi0_edge/chunk"]) == counts["chunks"] > 0
    names = [f"joint_{i}.pos" for i in range(6)] + ["gripper.pos"]
    for time, chunk, _ in messages["/pi0_edge/chunk"]:
        assert chunk.joint_names == names and len(chunk.points) == 10 and stamp(chunk.header) < time
        starts = [p.time_from_start.sec * 1_000_000_000 + p.time_from_start.nanosec for p in chunk.points]
        assert starts == [20_000_000 * row for row in range(10)]
        assert all(p.positions.shape == (7,) and p.velocities.size == 0 for p in chunk.points)
    for _, action, _ in messages["/pi0_edge/action"]:
        assert action.name == names and np.isfinite(action.position).all()
    statuses = {status.data for _, status, _ in messages["/pi0_edge/status"]}
    assert statuses <= {0, 1, 2, 3} and 0 in statuses
    assert all(0 < age.data < 10 for _, age, _ in messages["/pi0_edge/age"])
    states = messages["/joint_states"]
    assert all(len(state.position) == 6 and stamp(state.header) == time for time, state, _ in states)
    for topic in ("base", "wrist", "side"):
        images = messages[f"/camera/{topic}/compressed"]
        assert len(images) == len(states)
        picture = Image.open(io.BytesIO(images[0][1].data.tobytes()))
        assert images[0][1].format == "jpeg" and picture.format == "JPEG" and min(picture.size) > 8


def test_an_action_comes_from_the_chunk_that_was_planned(replayed):
    """Where the first row of a chunk is due, the recorded action lies between rows of the recorded chunks."""
    _, recording, _ = replayed
    messages = read(recording)
    rows = np.concatenate([[p.positions for p in chunk.points] for _, chunk, _ in messages["/pi0_edge/chunk"]])
    low, high = rows.min(axis=0) - 1e-6, rows.max(axis=0) + 1e-6
    actions = np.array([action.position for _, action, _ in messages["/pi0_edge/action"]])
    assert len(actions) > 20 and ((actions >= low) & (actions <= high)).all()


def test_a_flight_record_becomes_a_recording(replayed, program, tmp_path):
    _, recording, record = replayed
    # Of several reads within one control tick, the recording has the first.
    ticks = list({tick["tick"]: tick for tick in reversed(json.loads(record.read_text())["ticks"])}.values())[::-1]
    output = tmp_path / "flight.mcap"
    subprocess.run([program, "mcap", record, "--output", output, "--bundle", PROJECT / "models/pi0-tiny"], check=True)
    messages = read(output)
    assert len(messages["/pi0_edge/status"]) == len(ticks)
    assert [time for time, *_ in messages["/pi0_edge/status"]] == [tick["now_ns"] for tick in ticks]
    actions = [tick["action"] for tick in ticks if tick["action"]]
    np.testing.assert_allclose([a.position for _, a, _ in messages["/pi0_edge/action"]], actions, rtol=1e-6)
    # The last of them are in the live recording too, on the wall's clock.
    live = [a.position for _, a, _ in read(recording)["/pi0_edge/action"]]
    np.testing.assert_array_equal(live[-20:], [a.position for _, a, _ in messages["/pi0_edge/action"]][-20:])


def test_what_is_no_flight_record_is_refused(program, tmp_path):
    (tmp_path / "not.json").write_text('{"ticks": 3}')
    result = subprocess.run([program, "mcap", tmp_path / "not.json", "--output", tmp_path / "x.mcap"], capture_output=True, text=True)
    assert result.returncode == 1 and "is malformed" in result.stderr
