#!/usr/bin/env python3
"""A ROS 2 node: camera images and joint states in, a positions-only JointTrajectory out, for ros2_control's
JointTrajectoryController (which takes trajectories without velocities).

    pip install pi0-edge            # beside rclpy, in a ROS 2 environment
    python3 policy_node.py --ros-args -p bundle:=BUNDLE -p prompt:="pick up the cube" \\
        -p cameras:="['observation.images.base=/base/image_raw', 'observation.images.wrist=/wrist/image_raw']" \\
        -p state_joints:="['joint_0', 'joint_1']" -p action_joints:="['joint_0', 'joint_1']" \\
        -r command:=/joint_trajectory_controller/joint_trajectory

On every control period it hands the newest images and joint positions to the runtime, reads the action for now, and sends
it as a trajectory of one point, due one period later. On HOLD (too old, inference stopped) and before the first action it
sends nothing: the controller then holds the last point. Positions are in the joints' units, as the policy was trained on.
"""

from __future__ import annotations

import sys
import time
from functools import partial

import numpy as np
import rclpy
from builtin_interfaces.msg import Duration
from pi0_edge import Policy, Reading, Runtime, RuntimeConfig, Status
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

NEAR_NS = 5_000_000
"""A stamp that is later than now by no more than this is taken as now: clocks are read one after the other."""


def captured_ns(stamp_ns: int, ros_now_ns: int, monotonic_now_ns: int) -> int:
    """Converts a message's stamp to CLOCK_MONOTONIC, the runtime's clock, by its age on ROS's clock.

    Raises:
        ValueError: The stamp is later than now: it is from another machine's clock, or from simulated time.
    """
    age = ros_now_ns - stamp_ns
    if age < -NEAR_NS:
        raise ValueError(f"a stamp is {-age / 1e6:.0f} ms later than now: synchronise the clocks, or set use_sim_time alike")
    return monotonic_now_ns - max(age, 0)


def pixels(image: Image) -> np.ndarray:
    """Returns an image's pixels, (height, width, 3) RGB of uint8, without a copy.

    Raises:
        ValueError: The encoding is another one than rgb8 and bgr8, or the data are cut off.
    """
    if image.encoding not in ("rgb8", "bgr8"):
        raise ValueError(f"encoding {image.encoding}; rgb8 or bgr8 is taken: convert it with image_proc or the driver's setting")
    if image.step < 3 * image.width or len(image.data) < image.step * image.height:
        raise ValueError(f"{len(image.data)} bytes with a step of {image.step} are no {image.width} x {image.height} pixels")
    rows = np.frombuffer(image.data, np.uint8)[: image.step * image.height].reshape(image.height, image.step)
    rgb = rows[:, : 3 * image.width].reshape(image.height, image.width, 3)
    return rgb if image.encoding == "rgb8" else rgb[..., ::-1]


def positions(message: JointState, joints: list[str]) -> np.ndarray:
    """Returns the positions of the joints named, in their order: float32.

    Raises:
        ValueError: The message lacks one of them.
    """
    found = dict(zip(message.name, message.position, strict=False))
    missing = [joint for joint in joints if joint not in found]
    if missing:
        raise ValueError(f"joint states have no {', '.join(missing)}; they have {', '.join(message.name)}")
    return np.array([found[joint] for joint in joints], np.float32)


def trajectory(reading: Reading, joints: list[str], period_ns: int) -> JointTrajectory | None:
    """Returns the action as a trajectory of one point; None where the robot is to stay where it is."""
    if reading.status not in (Status.OK, Status.STALE) or reading.action is None:
        return None
    point = JointTrajectoryPoint(positions=[float(value) for value in reading.action])
    point.time_from_start = Duration(sec=period_ns // 10**9, nanosec=period_ns % 10**9)
    return JointTrajectory(joint_names=joints, points=[point])  # a stamp of zero: begin now


class PolicyNode(Node):
    """The node. Everything runs in the executor's thread, which must be one: writer and controller are a thread's own."""

    def __init__(self) -> None:
        super().__init__("pi0_edge")
        names = ("bundle", "prompt")
        bundle, prompt = (self.declare_parameter(name, "").value for name in names)
        self.state_joints, self.action_joints, cameras = (
            list(self.declare_parameter(name, [""]).value) for name in ("state_joints", "action_joints", "cameras")
        )
        rate, action_rate = (self.declare_parameter(name, 50.0).value for name in ("control_rate", "action_rate"))
        max_age = self.declare_parameter("max_age", 0.5).value
        self.period_ns = round(1e9 / rate)
        policy = Policy.load(bundle)
        for name, joints, width in (("state_joints", self.state_joints, policy.info.state_dim),
                                    ("action_joints", self.action_joints, policy.info.action_dim)):
            if len(joints) != width:
                raise ValueError(f"{name}: {len(joints)} joints; the policy has {width}, in its own order")
        self.required = {camera.name for camera in policy.cameras if camera.required}
        config = RuntimeConfig(
            prompt=prompt or None, control_period_ns=self.period_ns, action_period_ns=round(1e9 / action_rate),
            max_age_ns=round(max_age * 1e9), hold_after_ns=round(2 * max_age * 1e9), max_frame_width=1920, max_frame_height=1200,
            replan_remaining=policy.info.action_horizon // 2,
        )
        self.runtime = Runtime.start(policy, config, on_event=lambda event: self.get_logger().debug(str(event)))
        self.images: dict[str, Image] = {}
        self.joint_state: JointState | None = None
        self.handed_over, self.captured = 0, 0
        self.reading: Reading | None = None
        for camera in cameras:
            name, _, topic = camera.partition("=")
            self.create_subscription(Image, topic, partial(self.images.__setitem__, name), qos_profile_sensor_data)
        self.create_subscription(JointState, "joint_states", self.on_joint_state, qos_profile_sensor_data)
        self.command = self.create_publisher(JointTrajectory, "command", 1)
        self.create_timer(1 / rate, self.tick)

    def on_joint_state(self, message: JointState) -> None:
        self.joint_state = message

    def tick(self) -> None:
        """Hands the newest observation over, reads the action for now, and sends it."""
        try:
            self.observe()
        except (ValueError, RuntimeError) as error:  # a bad message costs its observation; the plan goes on until it is stale
            self.get_logger().error(str(error), throttle_duration_sec=1.0)
        reading = self.runtime.controller.read()
        if self.reading is None or reading.status is not self.reading.status:
            self.get_logger().info(f"{reading.status.name}, {reading.age_ns / 1e6:.0f} ms old, {reading.flags!r}")
        self.reading = reading
        message = trajectory(reading, self.action_joints, self.period_ns)
        if message is not None:
            self.command.publish(message)

    def observe(self) -> None:
        """Hands over what the newest messages hold, if there are all and they are newer than what was handed over."""
        if self.joint_state is None or not self.required <= set(self.images):
            return
        messages = [self.joint_state, *self.images.values()]
        stamps = [message.header.stamp.sec * 10**9 + message.header.stamp.nanosec for message in messages]
        if max(stamps) == self.handed_over:
            return
        captured = captured_ns(min(stamps), self.get_clock().now().nanoseconds, time.monotonic_ns())
        # The same stamp comes out differently by what passes between two readings of the clocks; it must not go back.
        if 0 < self.captured - captured <= NEAR_NS:
            captured = self.captured
        frames = {name: pixels(message) for name, message in self.images.items()}
        self.runtime.writer.publish(frames, positions(self.joint_state, self.state_joints), captured)
        self.handed_over, self.captured = max(stamps), captured

    def destroy_node(self) -> None:
        self.runtime.close()
        super().destroy_node()


def main() -> int:
    rclpy.init()
    node = None
    try:
        node = PolicyNode()
        rclpy.spin(node)
    except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        pass
    except (RuntimeError, ValueError) as error:
        print(f"policy_node: {error}", file=sys.stderr)
        return 1
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
