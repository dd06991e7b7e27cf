"""The structures, numbers and functions of pi0_edge.h, for ctypes. The tests compare all of it with the header."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_double, c_float, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Annotated, Any, TypeVar, get_type_hints

I32 = Annotated[int, c_int32]
U32 = Annotated[int, c_uint32]
U64 = Annotated[int, c_uint64]
Size = Annotated[int, c_size_t]
F32 = Annotated[float, c_float]
F64 = Annotated[float, c_double]
Text = Annotated["bytes | None", c_char_p]
Address = Annotated["int | None", c_void_p]

UNKNOWN = 2**64 - 1
"""What a figure of `Latency` is where too few values were recorded to say."""

_Layout = TypeVar("_Layout", bound="type[ctypes.Structure]")


def layout(structure: _Layout) -> _Layout:
    """Makes a structure's annotations its fields, in their order."""
    hints = get_type_hints(structure, include_extras=True)
    own = {name: hints[name] for name in structure.__annotations__}
    structure._fields_ = [(name, hint.__metadata__[0]) for name, hint in own.items()]
    return structure


class Struct(ctypes.Structure):
    """A structure that tells its size in its first field, `struct_size`, where it has that."""

    def __init__(self, **values: Any) -> None:
        if hasattr(type(self), "struct_size"):
            values = {"struct_size": ctypes.sizeof(self), **values}
        super().__init__(**values)
        for name, value in values.items():
            # ctypes would cut off what does not fit.
            if isinstance(value, int) and getattr(self, name) != value and (value or getattr(self, name)):
                raise ValueError(f"{name}: {value} is out of range")

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields by name, text as str; without `struct_size` and `reserved`."""
        return {name: _plain(getattr(self, name)) for name in self.__annotations__ if name not in ("struct_size", "reserved")}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.as_dict().items())})"


def _plain(value: Any) -> Any:
    if isinstance(value, Struct):
        return value.as_dict()
    return value.decode(errors="replace") if isinstance(value, bytes) else value


@layout
class PolicyOptions(Struct):
    struct_size: Size
    ort_library: Text
    engine_cache: Text
    provider: U32
    gpu: U32
    device_memory: U32
    no_cuda_graphs: U32
    threads: U32
    verify: U32
    weights: U32
    no_spin: U32


@layout
class ErrorText(Struct):
    message: Annotated[bytes, ctypes.c_char * 1024]


@layout
class Info(Struct):
    """The sizes of what a policy takes and gives.

    `kind` is 0 for PI0 and 1 for PI0.5. `cameras` counts the cameras it knows, required or not. `state_dim` and
    `action_dim` count values in robot units; `padded_action_dim` is the width of noise. `action_horizon` counts the
    actions of a chunk. `num_steps` and `max_num_steps` are the usual and the largest number of denoise steps.
    """

    struct_size: Size
    kind: U32
    cameras: U32
    state_dim: U32
    action_dim: U32
    padded_action_dim: U32
    action_horizon: U32
    num_steps: U32
    max_num_steps: U32


@layout
class Image(Struct):
    camera: Text
    rgb: Address
    width: U32
    height: U32


@layout
class CCameraFrame(Struct):
    struct_size: Size
    format: U32
    yuv: U32
    width: U32
    height: U32
    data: Address
    data_size: Size
    row_bytes: Size
    chroma: Address
    chroma_size: Size
    chroma_row_bytes: Size


@layout
class Observation(Struct):
    struct_size: Size
    images: Address
    image_count: Size
    state: Address
    state_len: Size
    prompt: Text


@layout
class CRtcConfig(Struct):
    struct_size: Size
    schedule: U32
    execution_horizon: U32
    max_guidance_weight: F64


@layout
class InferOptions(Struct):
    struct_size: Size
    seed: U64
    noise: Address
    noise_len: Size
    previous: Address
    previous_len: Size
    rtc: Address
    inference_delay: U32
    num_steps: U32


@layout
class Timing(Struct):
    """Where the time of a policy's last chunk went, in nanoseconds; `total_ns` is from the call to the chunk."""

    struct_size: Size
    preprocess_ns: U64
    vision_ns: U64
    prefix_ns: U64
    denoise_ns: U64
    total_ns: U64


@layout
class CThreadConfig(Struct):
    struct_size: Size
    cpus: Address
    cpu_count: Size
    worker_cpus: Address
    worker_cpu_count: Size
    prefault_stack: U64
    realtime: U32
    priority: U32
    lock_memory: U32
    keep_heap: U32


@layout
class CLimits(Struct):
    struct_size: Size
    min: Address
    max: Address
    len: Size


@layout
class CEvent(Struct):
    struct_size: Size
    kind: U32
    reserved: U32
    chunk: U64
    number: U64
    duration_ns: U64
    message: Annotated[bytes, ctypes.c_char * 512]


@layout
class CRuntimeConfig(Struct):
    struct_size: Size
    prompt: Text
    seed: U64
    max_frame_width: U32
    max_frame_height: U32
    control_period_ns: U64
    action_period_ns: U64
    max_age_ns: U64
    hold_after_ns: U64
    ramp_ns: U64
    interpolation: U32
    on_underrun: U32
    max_missed_ticks: U32
    trip_after: U32
    step_limits: Address
    step_limits_len: Size
    limits: Address
    rtc: Address
    replan: U32
    replan_remaining: U32
    replan_period_ns: U64
    delay_window: U32
    delay_warm_up: U32
    delay_quantile: F64
    delay_initial_ns: U64
    deadline_ns: U64
    watchdog_ns: U64
    retry_after_ns: U64
    stop_timeout_ns: U64
    max_errors: U32
    event_capacity: U32
    thread: Address
    flight_record: Text
    event_callback: Address
    event_user: Address
    event_fd: I32
    reserved: U32
    splice: U32
    reserved_splice: U32


@layout
class Realtime(Struct):
    """What the inference thread has, as read back from the system.

    `missing_count` counts what was asked for and not obtained; `missing` (UTF-8) says why, and what to do about it.
    """

    struct_size: Size
    locked_kib: U64
    stack_prefaulted: U64
    priority: I32
    heap_kept: U32
    missing_count: U32
    realtime: U32
    worker_count: U32
    reserved: U32
    scheduler: Annotated[bytes, ctypes.c_char * 16]
    missing: Annotated[bytes, ctypes.c_char * 1024]


@layout
class Latency(Struct):
    """A distribution of durations in nanoseconds; a figure that too few values were recorded for is `UNKNOWN`."""

    count: U64
    min_ns: U64
    mean_ns: U64
    p50_ns: U64
    p90_ns: U64
    p99_ns: U64
    p99_9_ns: U64
    p99_99_ns: U64
    max_ns: U64


_Distribution = Annotated[Latency, Latency]


@layout
class Stats(Struct):
    """What a runtime counted since its start. The C header's `pi0_stats` says what each field counts."""

    struct_size: Size
    phase: U32
    reserved: U32
    step_age_ns: U64
    events_lost: U64
    reads: U64
    reads_repeated: U64
    reads_ok: U64
    reads_stale: U64
    reads_hold: U64
    reads_empty: U64
    missed_ticks: U64
    chunks_executed: U64
    underruns: U64
    clamped: U64
    trips: U64
    chunks_begun: U64
    chunks_published: U64
    chunks_overwritten: U64
    chunks_guided: U64
    rejected_non_finite: U64
    rejected_limits: U64
    rejected_length: U64
    errors: U64
    panics: U64
    deadline_misses: U64
    abandoned: U64
    stale_observations: U64
    observations_published: U64
    observations_overwritten: U64
    observations_refused: U64
    wakes: U64
    age: _Distribution
    begin: _Distribution
    step: _Distribution
    finish: _Distribution
    gate: _Distribution
    chunk: _Distribution
    latency: _Distribution
    observations_unusable: U64


@layout
class Published(Struct):
    """What became of an observation.

    `overwrote` is 1 if the one before was never looked at, `woke` is 1 if the inference thread slept and was woken.
    """

    struct_size: Size
    overwrote: U32
    woke: U32


@layout
class CReading(Struct):
    struct_size: Size
    age_ns: U64
    chunk: U64
    tick: U64
    status: I32
    flags: U32
    row: U32
    remaining: U32
    missed: U32
    has_action: U32
    seam_jump: F32
    reserved: U32


_HANDLE, _OUT = c_void_p, POINTER(c_void_p)

# Functions that may take long or make a system call: Python's lock is given up meanwhile.
FUNCTIONS: dict[str, list[Any]] = {
    "pi0_policy_new": [c_char_p, POINTER(PolicyOptions), _OUT, POINTER(ErrorText)],
    "pi0_policy_free": [_HANDLE],
    "pi0_policy_info": [_HANDLE, POINTER(Info)],
    "pi0_policy_camera": [_HANDLE, c_uint32, c_char_p, c_size_t, POINTER(c_uint32)],
    "pi0_policy_infer": [
        _HANDLE, POINTER(Observation), POINTER(InferOptions), c_void_p, c_size_t, POINTER(ErrorText),
    ],
    "pi0_policy_timing": [_HANDLE, POINTER(Timing)],
    "pi0_camera_frame_to_rgb": [POINTER(CCameraFrame), c_void_p, c_size_t, POINTER(ErrorText)],
    "pi0_policy_options_default": [POINTER(PolicyOptions), c_size_t],
    "pi0_infer_options_default": [POINTER(InferOptions), c_size_t],
    "pi0_thread_config_default": [POINTER(CThreadConfig), c_size_t],
    "pi0_runtime_config_default": [POINTER(CRuntimeConfig), c_size_t],
    "pi0_rtc_config_default": [POINTER(CRtcConfig), c_size_t],
    "pi0_runtime_start": [_HANDLE, POINTER(CRuntimeConfig), _OUT, _OUT, _OUT, POINTER(ErrorText)],
    "pi0_runtime_stop": [_HANDLE, POINTER(ErrorText)],
    "pi0_runtime_free": [_HANDLE],
    "pi0_runtime_info": [_HANDLE, POINTER(Info)],
    "pi0_runtime_realtime": [_HANDLE, POINTER(Realtime)],
    "pi0_runtime_notify_systemd": [_HANDLE, POINTER(c_uint32), POINTER(ErrorText)],
    "pi0_runtime_take_policy": [_HANDLE, _OUT, POINTER(ErrorText)],
    "pi0_runtime_set_prompt": [_HANDLE, c_char_p],
    "pi0_runtime_set_num_steps": [_HANDLE, c_uint32],
    "pi0_runtime_set_limits": [_HANDLE, POINTER(CLimits)],
    "pi0_runtime_set_rtc": [_HANDLE, POINTER(CRtcConfig)],
    "pi0_runtime_stats": [_HANDLE, POINTER(Stats)],
    "pi0_runtime_next_event": [_HANDLE, c_uint64, POINTER(CEvent)],
    "pi0_runtime_write_flight_record": [_HANDLE, c_char_p, POINTER(ErrorText)],
    "pi0_observation_writer_camera": [_HANDLE, c_char_p, POINTER(c_uint32)],
    "pi0_observation_writer_convert_frame": [_HANDLE, c_uint32, POINTER(CCameraFrame), POINTER(ErrorText)],
    "pi0_observation_writer_clear_frame": [_HANDLE, c_uint32],
    "pi0_observation_writer_set_state": [_HANDLE, c_void_p, c_size_t],
    "pi0_observation_writer_publish": [_HANDLE, c_uint64, POINTER(Published)],
    "pi0_observation_writer_free": [_HANDLE],
    "pi0_controller_free": [_HANDLE],
}

# Functions of a bounded number of steps, called with Python's lock held: giving it up and getting it back would take
# longer than the call, and as long as another Python thread likes.
SHORT_FUNCTIONS: dict[str, list[Any]] = {
    "pi0_runtime_begin_episode": [_HANDLE],
    "pi0_observation_writer_attach": [_HANDLE],
    "pi0_controller_attach": [_HANDLE],
    "pi0_controller_read": [_HANDLE, c_void_p, c_size_t, POINTER(CReading)],
    "pi0_controller_set_reference": [_HANDLE, c_void_p, c_size_t],
    "pi0_controller_set_step_limits": [_HANDLE, c_void_p, c_size_t],
    "pi0_controller_set_state": [_HANDLE, c_void_p, c_size_t],
    "pi0_controller_clear_trip": [_HANDLE],
}
