"""Settings, as Python has them and as the library takes them."""

from __future__ import annotations

import ctypes
import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, Sequence

import numpy as np
import numpy.typing as npt

from ._abi import CLimits, CRtcConfig, CRuntimeConfig, CThreadConfig, Info
from ._arrays import floats, utf8

# The words for the header's numbers, each list from 0.
WORDS: dict[str, tuple[str, ...]] = {
    "provider": ("cpu", "cuda", "tensorrt"),
    "device_memory": ("auto", "separate", "unified"),
    "verify": ("full", "size", "changed"),
    "weights": ("auto", "mapped", "packed"),
    "interpolation": ("none", "linear"),
    "splice": ("time", "command", "state", "arrival"),
    "on_underrun": ("hold", "ramp", "flag_only"),
    "replan": ("remaining", "period"),
    "realtime": ("try", "enforce", "off"),
    "lock_memory": ("off", "on_fault", "all"),
    "schedule": ("zeros", "ones", "linear", "exp"),
    "format": ("rgb", "bgr", "rgba", "bgra", "grey", "yuyv", "uyvy", "nv12"),
    "yuv": ("bt601_limited", "bt601_full", "bt709_limited", "bt709_full"),
}


def number(setting: str, word: str) -> int:
    """Returns the header's number of a word.

    Raises:
        ValueError: The setting has no such word.
    """
    words = WORDS[setting]
    if word not in words:
        raise ValueError(f"{setting}: {word!r}; one of {', '.join(words)} is taken")
    return words.index(word)


@dataclass(frozen=True)
class RtcConfig:
    """Settings of guided real-time chunking, under lerobot's names and with its defaults.

    Attributes:
        schedule: How guidance falls over the rows.
        execution_horizon: The row where guidance ends, 1 to `action_horizon`.
        max_guidance_weight: Upper bound of the guidance weight, from 0.
    """

    schedule: Literal["zeros", "ones", "linear", "exp"] = "linear"
    execution_horizon: int = 10
    max_guidance_weight: float = 10.0

    def _c(self) -> CRtcConfig:
        values = dataclasses.asdict(self)
        return CRtcConfig(**{**values, "schedule": number("schedule", self.schedule)})


@dataclass(frozen=True)
class ThreadConfig:
    """What the inference thread is to have.

    Attributes:
        realtime: What to do where a right is missing: go on and report it, fail, or ask for nothing.
        priority: SCHED_FIFO priority, 1 to 99. 0 leaves the scheduling policy alone.
        cpus: The CPUs it may run on; empty leaves that alone.
        worker_cpus: The CPUs that ONNX Runtime's threads may run on; empty leaves that alone.
        prefault_stack: Bytes of its stack that are touched beforehand.
        lock_memory: Which memory of the process stays in RAM.
        keep_heap: Whether memory given back to the allocator stays with the process.
    """

    realtime: Literal["try", "enforce", "off"] = "try"
    priority: int = 80
    cpus: Sequence[int] = ()
    worker_cpus: Sequence[int] = ()
    prefault_stack: int = 256 * 1024
    lock_memory: Literal["off", "on_fault", "all"] = "on_fault"
    keep_heap: bool = True

    def _c(self, keep: list[Any]) -> CThreadConfig:
        lists = {}
        for name in ("cpus", "worker_cpus"):
            numbers = np.asarray(getattr(self, name), dtype=np.uint32)
            keep.append(numbers)
            lists[name] = numbers.ctypes.data if numbers.size else None
        return CThreadConfig(
            cpus=lists["cpus"], cpu_count=len(self.cpus),
            worker_cpus=lists["worker_cpus"], worker_cpu_count=len(self.worker_cpus),
            prefault_stack=self.prefault_stack, realtime=number("realtime", self.realtime), priority=self.priority,
            lock_memory=number("lock_memory", self.lock_memory), keep_heap=int(self.keep_heap),
        )


@dataclass(frozen=True)
class Limits:
    """Lowest and highest value of each joint, (action_dim,) in robot units, both ends included."""

    min: npt.ArrayLike
    max: npt.ArrayLike

    def _c(self, info: Info, keep: list[Any]) -> CLimits:
        ends = [floats(f"limits.{name}", getattr(self, name), (info.action_dim,)) for name in ("min", "max")]
        keep += ends
        return CLimits(min=ends[0].ctypes.data, max=ends[1].ctypes.data, len=info.action_dim)


@dataclass(frozen=True)
class RuntimeConfig:
    """Settings of a runtime. Times are in nanoseconds; the defaults are the library's.

    Attributes:
        prompt: The task. None for the bundle's default.
        seed: Seed of the noise; every chunk draws its own from it and the chunk's number.
        max_frame_width: Width of the widest frame that a camera slot has room for, in pixels.
        max_frame_height: Height of the highest.
        control_period_ns: How often actions are read.
        action_period_ns: How far apart the rows of a chunk are.
        max_age_ns: An action whose observation is older than this is STALE.
        hold_after_ns: An action whose observation is older than this is not followed any more: HOLD.
        ramp_ns: How long `on_underrun="ramp"` takes to come to rest.
        interpolation: How one row turns into the next.
        splice: The row at which a new chunk takes over: the one that is due by "time"; of those due the one that follows
            on the last "command", or that the measured "state" has reached (`Controller.set_state`); row 0 on "arrival".
        on_underrun: What happens to motion when there is nothing valid to follow.
        max_missed_ticks: If the control loop misses more ticks than this in a row, the plan waits for it.
        trip_after: After this many ticks in a row at the step limit: HOLD until `Controller.clear_trip`. 0: never.
        step_limits: How far each joint may move from one tick to the next, (action_dim,) in robot units; infinity:
            no limit. None for none.
        limits: A chunk with a value outside these is not published. None: values must be finite, that is all.
        rtc: Real-time chunking. None: chunks are computed without regard to each other.
        replan: When the next chunk is begun: `replan_remaining` rows are left, or `replan_period_ns` have passed.
        delay_window: RTC's inference delay is estimated from this many of the latest latencies, 1 to 64.
        delay_warm_up: How many chunks after the start do not count for that.
        delay_quantile: Which of those latencies is the estimate: the one that this share does not exceed, 0 to 1.
        delay_initial_ns: The estimate until there is one.
        deadline_ns: A chunk that is not finished this long after it was begun is dropped. 0: none is.
        watchdog_ns: Inference that has not come back from one step for this long counts as hung: HOLD.
        retry_after_ns: How long after an error inference is tried again.
        stop_timeout_ns: How long `Runtime.stop` waits for inference to come back.
        max_errors: After this many errors in a row inference gives up: HOLD for good.
        event_capacity: How many events are kept until somebody takes them, 1 to 65536.
        thread: What the inference thread is to have. None for the defaults.
        flight_record: The file the flight record is written to when the step limit trips or inference gives up.
    """

    prompt: str | None = None
    seed: int = 0
    max_frame_width: int = 1280
    max_frame_height: int = 720
    control_period_ns: int = 1_000_000
    action_period_ns: int = 20_000_000
    max_age_ns: int = 500_000_000
    hold_after_ns: int = 1_000_000_000
    ramp_ns: int = 0
    interpolation: Literal["none", "linear"] = "linear"
    splice: Literal["time", "command", "state", "arrival"] = "time"
    on_underrun: Literal["hold", "ramp", "flag_only"] = "hold"
    max_missed_ticks: int = 10
    trip_after: int = 0
    step_limits: npt.ArrayLike | None = None
    limits: Limits | None = None
    rtc: RtcConfig | None = None
    replan: Literal["remaining", "period"] = "remaining"
    replan_remaining: int = 25
    replan_period_ns: int = 0
    delay_window: int = 10
    delay_warm_up: int = 1
    delay_quantile: float = 1.0
    delay_initial_ns: int = 0
    deadline_ns: int = 0
    watchdog_ns: int = 1_000_000_000
    retry_after_ns: int = 100_000_000
    stop_timeout_ns: int = 2_000_000_000
    max_errors: int = 10
    event_capacity: int = 256
    thread: ThreadConfig | None = None
    flight_record: str | None = None

    def _c(self, info: Info, keep: list[Any]) -> CRuntimeConfig:
        """Returns the library's form; `keep` gets what must live as long as it."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for setting in ("interpolation", "splice", "on_underrun", "replan"):
            values[setting] = number(setting, values[setting])
        for text in ("prompt", "flight_record"):
            values[text] = utf8(text, values[text])
        if self.step_limits is not None:
            limits = floats("step_limits", self.step_limits, (info.action_dim,))
            keep.append(limits)
            values.update(step_limits=limits.ctypes.data, step_limits_len=limits.size)
        parts = {
            "limits": self.limits and self.limits._c(info, keep),
            "rtc": self.rtc and self.rtc._c(),
            "thread": self.thread and self.thread._c(keep),
        }
        keep += parts.values()
        values.update({name: ctypes.addressof(part) if part else None for name, part in parts.items()})
        return CRuntimeConfig(**values, event_fd=-1)
