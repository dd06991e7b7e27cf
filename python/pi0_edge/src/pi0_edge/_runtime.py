"""The real-time runtime: inference on a thread of its own, observations in, the action for now out."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from ctypes import byref
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any, Callable, Mapping

import numpy.typing as npt

from ._abi import CEvent, CReading, ErrorText, Info, Published, Realtime, Stats
from ._arrays import Floats, Pixels, floats, frame, output, utf8
from ._config import Limits, RtcConfig, RuntimeConfig
from ._frame import CameraFrame
from ._handle import Handle
from ._library import check, load
from ._policy import Policy
from ._status import Status

_LOG = logging.getLogger("pi0_edge")
_EVENT_WAIT_NS = 50_000_000


class Flag(IntFlag):
    """Why a reading is as it is; any number of them."""

    NEW_CHUNK = 1
    UNDERRUN = 2
    CLAMPED = 4
    TRIPPED = 8
    RAMPING = 16
    MISSED_TICKS = 32
    REPEATED = 64
    HUNG = 128
    STOPPED = 256
    UNMEASURED = 512


class EventKind(IntEnum):
    """Kinds of events; the C header says what each has in `number`."""

    CHUNK = 1
    REJECTED = 2
    DEADLINE_MISS = 3
    ENGINE_ERROR = 4
    COMMAND_FAILED = 5
    GAVE_UP = 6
    HUNG = 7
    RECOVERED = 8
    TRIPPED = 9
    FLIGHT_RECORD = 10
    FLIGHT_RECORD_FAILED = 11
    OBSERVATION_REFUSED = 12


@dataclass(frozen=True)
class Event:
    """Something that happened, off the real-time path. `kind` is a bare number where the library is newer than this."""

    kind: EventKind | int
    chunk: int
    number: int
    duration_ns: int
    message: str


@dataclass
class Reading:
    """The action for now, and how far it can be relied on.

    Attributes:
        status: OK; STALE: the observation is old, the plan is still followed; HOLD: the plan is not followed any
            more; EMPTY: there is nothing yet.
        flags: Why.
        action: float32, (action_dim,), robot units; on HOLD the last action, held. None on EMPTY without a reference.
        age_ns: From the capture of the chunk's observation to now; 0 before the first chunk.
        chunk: The chunk the action comes from, from 1; 0 before the first.
        tick: The control tick, from 0 at the first read.
        row: The row of the chunk that is being executed.
        remaining: Rows of the chunk that have not begun.
        missed: Control ticks missed since the read before.
        seam_jump: On the first action from a chunk: the largest distance of any joint from the action before to the
            one the chunk asks for, before the step limit, in robot units. 0 otherwise.
    """

    status: Status
    flags: Flag
    action: Floats | None
    age_ns: int
    chunk: int
    tick: int
    row: int
    remaining: int
    missed: int
    seam_jump: float


class Runtime(Handle):
    """A running runtime, for its owner. Use `Runtime.start`. Any thread may call, several at once.

    Closing it, or leaving its `with`, stops inference and frees `writer` and `controller` too.

    Attributes:
        info: The sizes of what the policy takes and gives.
        writer: The sensor side, for the thread that has the sensors.
        controller: The control loop's side, for the thread that moves the robot.
    """

    _free = "pi0_runtime_free"

    @classmethod
    def start(
        cls, policy: Policy, config: RuntimeConfig | None = None, *, on_event: Callable[[Event], object] | None = None
    ) -> Runtime:
        """Starts inference on a thread of its own, and returns once the policy is warmed up there.

        Args:
            policy: Taken over: it is closed afterwards, whatever the outcome, unless it was busy.
            config: Settings. None for the defaults.
            on_event: Called with each event, on a Python thread of its own. An exception from it is logged (logger
                `pi0_edge`), and the next event comes all the same. None: `next_event` gives the events.

        Raises:
            Pi0Error: The settings contradict each other, a real-time right that was insisted on is missing, or the
                policy does not run.
            TypeError, ValueError: An array among the settings is not of the dtype or shape it must have.
        """
        library, kept = load(), list[Any]()
        settings = (config or RuntimeConfig())._c(policy.info, kept)
        handles, error = [ctypes.c_void_p() for _ in range(3)], ErrorText()
        status = library.pi0_runtime_start(policy._handle, byref(settings), *map(byref, handles), byref(error))
        if status != Status.ERR_BUSY:
            policy.close()
        check(status, "starting the runtime", error)
        return cls([handle.value for handle in handles], policy.info, on_event)

    def __init__(self, handles: list[int | None], info: Info, on_event: Callable[[Event], object] | None) -> None:
        self._library, self.info = load(), info
        self.writer, self.controller = ObservationWriter(handles[1], info), Controller(handles[2], info)
        self._events_taken = on_event is not None
        ended, thread = threading.Event(), None
        if on_event is not None:
            thread = threading.Thread(target=_deliver, args=(handles[0], on_event, ended), name="pi0-events", daemon=True)

        def end_events() -> None:
            ended.set()
            if thread is not None and thread is not threading.current_thread():
                thread.join()

        super().__init__(handles[0], end_events)
        if thread is not None:
            thread.start()

    def close(self) -> None:
        """Stops inference, and frees the runtime, its writer and its controller; closing again does nothing.

        Raises:
            Pi0Error: `Status.ERR_BUSY` if another thread is inside a call with one of them; close again.
        """
        super().close()
        self.writer.close()
        self.controller.close()

    def stop(self) -> None:
        """Stops inference and waits for its thread, for `stop_timeout_ns` at most. Reads are HOLD from then on.

        Raises:
            Pi0Error: `Status.ERR_RUNTIME` if inference does not come back in time; its thread is left behind.
        """
        error = ErrorText()
        check(self._library.pi0_runtime_stop(self._handle, byref(error)), "stopping the runtime", error)

    def take_policy(self) -> Policy:
        """Stops inference as `stop` does and returns its policy, to be started again or used alone without loading it.

        Raises:
            Pi0Error: `Status.ERR_STATE` if it was taken before, `Status.ERR_RUNTIME` if inference does not come back.
        """
        handle, error = ctypes.c_void_p(), ErrorText()
        status = self._library.pi0_runtime_take_policy(self._handle, byref(handle), byref(error))
        check(status, "taking the policy", error)
        return Policy(handle.value)

    def begin_episode(self) -> None:
        """Begins a new episode: the robot was put somewhere else, or its task starts anew.

        The plan and the held action are dropped: reads are EMPTY until there is a chunk of an observation that was
        captured and published after this call. A trip of the step limit stays.
        """
        check(self._library.pi0_runtime_begin_episode(self._handle), "beginning an episode")

    def realtime(self) -> Realtime:
        """Returns what the inference thread was given of what it was to have."""
        realtime = Realtime()
        check(self._library.pi0_runtime_realtime(self._handle, byref(realtime)), "pi0_runtime_realtime")
        return realtime

    def stats(self) -> Stats:
        """Returns what was counted so far; takes no lock that the control loop or inference could wait for."""
        stats = Stats()
        check(self._library.pi0_runtime_stats(self._handle, byref(stats)), "pi0_runtime_stats")
        return stats

    def set_prompt(self, prompt: str) -> None:
        """Sets the task. A chunk being computed is begun anew; a prompt that cannot be used shows as an event.

        Raises:
            Pi0Error: `Status.ERR_RUNTIME` if inference has ended, or 16 commands are waiting.
        """
        check(self._library.pi0_runtime_set_prompt(self._handle, utf8("prompt", prompt)), "setting the prompt")

    def set_num_steps(self, num_steps: int) -> None:
        """Sets the number of denoise steps, 1 to `max_num_steps`; another one shows as an event.

        Raises:
            Pi0Error: As of `set_prompt`.
        """
        if not 1 <= num_steps < 2**32:
            raise ValueError(f"num_steps: {num_steps}; 1 to {self.info.max_num_steps} is taken")
        check(self._library.pi0_runtime_set_num_steps(self._handle, num_steps), "setting the number of steps")

    def set_limits(self, limits: Limits | None) -> None:
        """Sets the limits chunks must keep to, from the next one finished on. None: values must be finite.

        Raises:
            Pi0Error: As of `set_prompt`.
            TypeError, ValueError: An array is not of the dtype or shape it must have.
        """
        kept: list[Any] = []
        given = limits and byref(limits._c(self.info, kept))
        check(self._library.pi0_runtime_set_limits(self._handle, given), "setting the limits")

    def set_rtc(self, rtc: RtcConfig | None) -> None:
        """Turns real-time chunking on, to other settings, or off by None, from the next chunk begun on.

        Raises:
            Pi0Error: As of `set_prompt`.
        """
        check(self._library.pi0_runtime_set_rtc(self._handle, rtc and byref(rtc._c())), "setting real-time chunking")

    def next_event(self, timeout_ns: int = 0) -> Event | None:
        """Returns the next event, waiting up to `timeout_ns` for it; None if there is none by then.

        Raises:
            Pi0Error: The runtime is closed.
            ValueError: The runtime was started with `on_event`, which gets them.
        """
        if self._events_taken:
            raise ValueError("on_event gets this runtime's events")
        return _next_event(self._handle, timeout_ns)

    def write_flight_record(self, path: str | os.PathLike[str]) -> None:
        """Writes the last control ticks and chunks to a file, as JSON: all of it or nothing.

        Raises:
            Pi0Error: `Status.ERR_IO` if it cannot be written.
        """
        error = ErrorText()
        status = self._library.pi0_runtime_write_flight_record(self._handle, os.fsencode(path), byref(error))
        check(status, f"writing {os.fsdecode(path)}", error)

    def notify_systemd(self) -> bool:
        """Tells systemd from now on how inference goes, for services of `Type=notify`: READY, WATCHDOG, STOPPING.

        Returns:
            Whether there is a systemd that wants to know (`$NOTIFY_SOCKET`).

        Raises:
            Pi0Error: The environment is not what systemd sets, or nobody listens.
        """
        found, error = ctypes.c_uint32(), ErrorText()
        check(self._library.pi0_runtime_notify_systemd(self._handle, byref(found), byref(error)), "notifying systemd", error)
        return bool(found.value)


def _next_event(runtime: int | None, timeout_ns: int) -> Event | None:
    event = CEvent()
    if check(load().pi0_runtime_next_event(runtime, timeout_ns, byref(event)), "waiting for an event") == Status.EMPTY:
        return None
    kind = EventKind(event.kind) if event.kind in EventKind._value2member_map_ else event.kind
    return Event(kind, event.chunk, event.number, event.duration_ns, event.message.decode(errors="replace"))


def _deliver(runtime: int | None, on_event: Callable[[Event], object], ended: threading.Event) -> None:
    # A Python thread that asks, not a thread of the library that calls: no such thread may enter an interpreter that
    # is shutting down.
    while not ended.is_set():
        event = _next_event(runtime, _EVENT_WAIT_NS)
        if event is not None:
            try:
                on_event(event)
            except Exception:
                _LOG.exception("on_event raised; the next event comes all the same")


class ObservationWriter(Handle):
    """The sensor side of a runtime. It belongs to the first thread that publishes.

    A call from another thread raises `Pi0Error` with `Status.ERR_THREAD`, until that one calls `attach`.
    """

    _free = "pi0_observation_writer_free"

    def __init__(self, handle: int | None, info: Info) -> None:
        super().__init__(handle)
        self._library, self._info = load(), info
        self._numbers: dict[str, int] = {}

    def publish(self, images: Mapping[str, Pixels | CameraFrame], state: npt.ArrayLike, captured_ns: int) -> Published:
        """Hands one observation over. Costs one system call if the inference thread sleeps.

        Args:
            images: A frame for each camera that is present, by name: uint8, (height, width, 3), RGB, or a `CameraFrame`
                of another layout; no larger than the configured slot. Each is copied or converted once, into the slot;
                rows may be apart. Others count as absent.
            state: float32, (state_dim,), robot units.
            captured_ns: When the oldest part was captured, on CLOCK_MONOTONIC (`time.monotonic_ns()`); not later than
                now, nor before that of the observation published last.

        Raises:
            Pi0Error: A camera is not known, a frame is larger than its slot, the time is of another clock or order,
                inference has ended, or the thread is the wrong one. The observation was not handed over.
            TypeError, ValueError: As of `Policy.infer`.
        """
        library, handle = self._library, self._handle
        given = {self._number(name): _camera_frame(name, image) for name, image in images.items()}
        if len(given) < len(images):
            raise ValueError(f"images: two of {', '.join(images)} are the same camera")
        values = floats("state", state, (self._info.state_dim,))
        names = {number: name for name, number in self._numbers.items()}
        frames = {camera: image._c(f"camera {names[camera]}") for camera, image in given.items()}
        error = ErrorText()
        for camera in range(self._info.cameras):
            if (image := frames.get(camera)) is None:
                check(library.pi0_observation_writer_clear_frame(handle, camera), "clearing a camera")
                continue
            status = library.pi0_observation_writer_convert_frame(handle, camera, byref(image), byref(error))
            check(status, f"camera {names[camera]}, {image.width} x {image.height} pixels", error)
        check(library.pi0_observation_writer_set_state(handle, values.ctypes.data, values.size), "setting the state")
        published = Published()
        if not 0 <= captured_ns < 2**64:
            raise ValueError(f"captured_ns: {captured_ns}; nanoseconds on CLOCK_MONOTONIC are taken")
        check(library.pi0_observation_writer_publish(handle, captured_ns, byref(published)), "publishing an observation")
        return published

    def attach(self) -> None:
        """Makes the calling thread the sensor thread."""
        check(self._library.pi0_observation_writer_attach(self._handle), "attaching the writer")

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            number = ctypes.c_uint32()
            status = self._library.pi0_observation_writer_camera(self._handle, utf8("camera", name), byref(number))
            check(status, f"camera {name}")
            self._numbers[name] = number.value
        return self._numbers[name]


def _camera_frame(name: str, image: Pixels | CameraFrame) -> CameraFrame:
    """Returns an image as a frame whose rows have no gaps; a copy only if an array of RGB has them."""
    if isinstance(image, CameraFrame):
        return image
    pixels = frame(name, image)
    height, width, _ = pixels.shape
    in_rows = pixels.strides[1:] == (3, 1) and (height <= 1 or pixels.strides[0] >= 3 * width)
    return CameraFrame(pixels if in_rows else pixels.copy(order="C"))


class Controller(Handle):
    """The control loop's side of a runtime. It belongs to the first thread that calls.

    A call from another thread raises `Pi0Error` with `Status.ERR_THREAD`, until that one calls `attach`.
    """

    _free = "pi0_controller_free"

    def __init__(self, handle: int | None, info: Info) -> None:
        super().__init__(handle)
        self._library, self._width = load(), info.action_dim

    def read(self, out: Floats | None = None) -> Reading:
        """Reads the action for now: call it once per control period.

        The library takes no lock and makes no system call for it. Python does as Python does: for a hard deadline
        let a loop in C or C++ read (docs/c.md).

        Args:
            out: Where to write the action: float32, (action_dim,), contiguous; left alone while there is none. None
                for a new array.

        Raises:
            Pi0Error: The controller is closed, or belongs to another thread.
            TypeError, ValueError: `out` is not as said.
        """
        action, reading = output("out", out, (self._width,)), CReading()
        status = self._library.pi0_controller_read(self._handle, action.ctypes.data, self._width, byref(reading))
        check(status, "reading the action")
        return Reading(
            Status(status), Flag(reading.flags), action if reading.has_action else None, reading.age_ns, reading.chunk,
            reading.tick, reading.row, reading.remaining, reading.missed, reading.seam_jump,
        )

    def set_reference(self, position: npt.ArrayLike) -> None:
        """Tells where the robot is before the first action, so that the first step is limited too.

        Args:
            position: float32, (action_dim,), robot units; the action until there is a chunk.

        Raises:
            Pi0Error: A value is not finite.
            TypeError, ValueError: It is not of that dtype and shape.
        """
        self._set(self._library.pi0_controller_set_reference, "position", position, "the reference")

    def set_step_limits(self, limits: npt.ArrayLike) -> None:
        """Sets how far each joint may move from one tick to the next.

        Args:
            limits: float32, (action_dim,), robot units, above 0; infinity: no limit.

        Raises:
            Pi0Error: A limit is not positive.
            TypeError, ValueError: They are not of that dtype and shape.
        """
        self._set(self._library.pi0_controller_set_step_limits, "limits", limits, "the step limits")

    def set_state(self, state: npt.ArrayLike) -> None:
        """Hands in the measured state for the next read, for `splice="state"`.

        Args:
            state: float32, (action_dim,): the position of each joint of an action, in the units of the observation's
                state; NaN for a joint that is not measured.

        Raises:
            Pi0Error: A value is infinite, or none is a number.
            TypeError, ValueError: It is not of that dtype and shape.
        """
        self._set(self._library.pi0_controller_set_state, "state", state, "the measured state")

    def _set(self, function: Callable[..., int], name: str, values: npt.ArrayLike, what: str) -> None:
        array = floats(name, values, (self._width,))
        check(function(self._handle, array.ctypes.data, array.size), f"setting {what}")

    def clear_trip(self) -> None:
        """Ends the hold that a trip of the step limit led to."""
        check(self._library.pi0_controller_clear_trip(self._handle), "clearing the trip")

    def attach(self) -> None:
        """Makes the calling thread the control thread."""
        check(self._library.pi0_controller_attach(self._handle), "attaching the controller")
