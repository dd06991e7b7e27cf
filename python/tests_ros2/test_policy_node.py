"""Opt-in test of examples/ros2/policy_node.py with ROS 2 itself: images and joint states go in by one node, trajectories
come out to it, over DDS. Needs rclpy, sensor_msgs and trajectory_msgs: in a sourced ROS 2, or (Python 3.12)

  pip install ros-jazzy-rclpy ros-jazzy-rmw-fastrtps-cpp ros-jazzy-sensor-msgs ros-jazzy-trajectory-msgs numpy pillow pytest
  python -m pytest python/tests_ros2
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
for place in ("python/pi0_edge/src", "examples/ros2"):
    sys.path.insert(0, str(ROOT / place))
os.environ.setdefault("PI0_EDGE_LIBRARY", str(ROOT / "target/debug/libpi0_edge.so"))
rclpy = pytest.importorskip("rclpy", reason="rclpy is not there: the ROS 2 node was NOT tested")

import policy_node  # noqa: E402
from pi0_edge import Flag, Reading, Status  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import qos_profile_sensor_data  # noqa: E402
from sensor_msgs.msg import Image, JointState  # noqa: E402
from trajectory_msgs.msg import JointTrajectory  # noqa: E402

STATE_JOINTS = [f"joint_{number}" for number in range(6)]
ACTION_JOINTS = [*STATE_JOINTS, "gripper"]
CAMERAS = ["base", "wrist"]
WAIT_S = 60


def image(height=48, width=64, encoding="rgb8", padding=0) -> Image:
    rows = np.zeros((height, 3 * width + padding), np.uint8)
    rows[:, : 3 * width] = np.arange(3 * width) % 251
    return Image(height=height, width=width, encoding=encoding, step=rows.shape[1], data=rows.tobytes())


@pytest.mark.parametrize("padding", [0, 5])
def test_pixels(padding):
    rgb, bgr = policy_node.pixels(image(padding=padding)), policy_node.pixels(image(encoding="bgr8", padding=padding))
    assert rgb.shape == (48, 64, 3) and list(rgb[7, 1]) == [3, 4, 5]
    assert np.array_equal(rgb[..., ::-1], bgr)


@pytest.mark.parametrize("broken, words", [
    (image(encoding="mono8"), "rgb8 or bgr8"), (Image(height=2, width=2, encoding="rgb8", step=3, data=bytes(12)), "no 2 x 2"),
    (Image(height=9, width=2, encoding="rgb8", step=6, data=bytes(12)), "no 2 x 9"),
])
def test_images_that_are_none(broken, words):
    with pytest.raises(ValueError, match=words):
        policy_node.pixels(broken)


def test_positions_are_by_name():
    message = JointState(name=["b", "a", "c"], position=[2.0, 1.0, 3.0])
    assert policy_node.positions(message, ["a", "b"]).tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="no d; they have b, a, c"):
        policy_node.positions(message, ["a", "d"])


def test_stamps_on_the_runtime_s_clock():
    assert policy_node.captured_ns(900, 1_000, 50_000) == 49_900
    assert policy_node.captured_ns(1_100, 1_000, 50_000) == 50_000
    with pytest.raises(ValueError, match="later than now"):
        policy_node.captured_ns(10**12, 10**9, 5 * 10**9)


@pytest.mark.parametrize("status, sent", [(Status.OK, True), (Status.STALE, True), (Status.HOLD, False), (Status.EMPTY, False)])
def test_nothing_is_sent_on_hold(status, sent):
    reading = Reading(status, Flag(0), np.ones(7, np.float32), 1, 1, 1, 1, 1, 0, 0.0)
    message = policy_node.trajectory(reading, ACTION_JOINTS, 20_000_000)
    assert (message is not None) is sent
    if sent:
        assert message.joint_names == ACTION_JOINTS and message.points[0].time_from_start.nanosec == 20_000_000
        assert list(message.points[0].positions) == [1.0] * 7
        assert not len(message.points[0].velocities) and message.header.stamp.sec == 0


def test_the_node_moves_a_robot_and_holds_when_its_cameras_stop():
    rclpy.init(args=["--ros-args", "-p", f"bundle:={ROOT}/models/pi0-tiny", "-p", "prompt:=open the drawer", "-p", "max_age:=1.0",
                     "-p", f"state_joints:={STATE_JOINTS}", "-p", f"action_joints:={ACTION_JOINTS}", "-p", "control_rate:=20.0",
                     "-p", f"cameras:={[f'observation.images.{name}=/{name}/image_raw' for name in CAMERAS]}"])
    node, robot, executor = None, rclpy.create_node("robot"), SingleThreadedExecutor()
    received: list[JointTrajectory] = []
    try:
        node = policy_node.PolicyNode()
        assert isinstance(node.get_parameter("bundle"), Parameter)
        images = {name: robot.create_publisher(Image, f"/{name}/image_raw", qos_profile_sensor_data) for name in CAMERAS}
        joints = robot.create_publisher(JointState, "joint_states", qos_profile_sensor_data)
        robot.create_subscription(JointTrajectory, "command", received.append, 10)
        cameras_on = True

        def show():
            stamp = robot.get_clock().now().to_msg()
            for publisher in images.values() if cameras_on else ():
                message = image()
                message.header.stamp = stamp
                publisher.publish(message)
            state = JointState(name=STATE_JOINTS, position=[0.1] * 6)
            state.header.stamp = stamp
            joints.publish(state)

        robot.create_timer(0.05, show)
        executor.add_node(robot)
        executor.add_node(node)

        def spin_until(condition, what):
            end = time.monotonic() + WAIT_S
            while not condition():
                assert time.monotonic() < end, f"waited {WAIT_S} s for {what}"
                executor.spin_once(timeout_sec=0.1)

        spin_until(lambda: len(received) >= 20, "trajectories")
        assert all(message.joint_names == ACTION_JOINTS and len(message.points[0].positions) == 7 for message in received)
        assert node.runtime.stats().chunks_published >= 1
        cameras_on = False
        # Not merely between two chunks: its images are too old to follow.
        held = lambda: node.reading.status is Status.HOLD and node.reading.age_ns > 2 * 10**9  # noqa: E731
        spin_until(held, "HOLD after the cameras stopped")
        count = len(received)
        for _ in range(20):
            executor.spin_once(timeout_sec=0.05)
        assert held() and len(received) - count <= 1  # one may have been on its way
        cameras_on = True
        spin_until(lambda: len(received) > count + 5, "trajectories once the cameras are back")
    finally:
        if node is not None:
            node.destroy_node()
        robot.destroy_node()
        rclpy.shutdown()
