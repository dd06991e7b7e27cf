"""PI0 and PI0.5 policies on robots: libpi0_edge from Python.

    with Policy.load("BUNDLE") as policy:
        actions = policy.infer({"observation.images.base": frame}, state, "pick up the cube", seed=1)

    with Runtime.start(Policy.load("BUNDLE"), RuntimeConfig(prompt="pick up the cube")) as runtime:
        runtime.writer.publish({"observation.images.base": frame}, state, captured_ns=time.monotonic_ns())
        reading = runtime.controller.read()

Arrays are numpy's, times are nanoseconds on CLOCK_MONOTONIC (`time.monotonic_ns()`), and what fails raises `Pi0Error`
with a `Status`. docs/python.md is the way there.
"""

from ._abi import UNKNOWN, Info, Latency, Published, Realtime, Stats, Timing
from ._config import Limits, RtcConfig, RuntimeConfig, ThreadConfig
from ._frame import CameraFrame
from ._policy import Camera, Policy
from ._runtime import Controller, Event, EventKind, Flag, ObservationWriter, Reading, Runtime
from ._status import Pi0Error, Status
from ._version import __version__

__all__ = [
    "UNKNOWN", "Camera", "CameraFrame", "Controller", "Event", "EventKind", "Flag", "Info", "Latency", "Limits", "ObservationWriter",
    "Pi0Error", "Policy", "Published", "Reading", "Realtime", "RtcConfig", "Runtime", "RuntimeConfig", "Stats", "Status",
    "ThreadConfig", "Timing", "__version__",
]
