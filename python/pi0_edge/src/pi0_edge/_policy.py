"""A policy: one observation in, one chunk of actions out."""

from __future__ import annotations

import ctypes
import os
from ctypes import byref
from typing import Literal, Mapping, NamedTuple

import numpy as np
import numpy.typing as npt

from ._abi import ErrorText, Image, InferOptions, Info, Observation, PolicyOptions, Timing
from ._arrays import Floats, Pixels, floats, frame, output, utf8
from ._config import RtcConfig, number
from ._handle import Handle
from ._library import check, load


class Camera(NamedTuple):
    """A camera of a policy; no observation may be without a required one."""

    name: str
    required: bool


class Policy(Handle):
    """An opened bundle, ready to compute chunks. Use `Policy.load`.

    Any thread may call, one at a time: a call while another is going on raises `Pi0Error` with `Status.ERR_BUSY`.
    Python's lock is given up while a chunk is computed; a signal's handler runs after it.

    Attributes:
        info: The sizes of what the policy takes and gives.
        cameras: The cameras it knows, in its order.
    """

    _free = "pi0_policy_free"

    @classmethod
    def load(
        cls,
        bundle: str | os.PathLike[str],
        *,
        provider: Literal["cpu", "cuda", "tensorrt"] = "cpu",
        gpu: int = 0,
        device_memory: Literal["auto", "separate", "unified"] = "auto",
        cuda_graphs: bool = True,
        threads: int = 0,
        spin: bool = True,
        verify: Literal["full", "size", "changed"] = "changed",
        weights: Literal["auto", "mapped", "packed"] = "auto",
        ort_library: str | os.PathLike[str] | None = None,
        engine_cache: str | os.PathLike[str] | None = None,
    ) -> Policy:
        """Opens a bundle: verifies it, loads ONNX Runtime and the graphs, and makes every buffer.

        Takes seconds to minutes for a full-size bundle, whose files must not change while the policy lives. Sets the
        environment variable ORT_DISABLE_TELEMETRY to 1.

        Args:
            bundle: The bundle's directory.
            provider: What computes the graphs. If it cannot, opening fails and says why.
            gpu: The GPU, as CUDA counts them from 0.
            device_memory: Where tensors are that the host and the graphs both touch.
            cuda_graphs: Whether CUDA graphs are captured where that is possible.
            threads: Threads of one operator, the calling thread included. 0: one per available core.
            spin: Whether threads that wait spin (faster by some per cent) or sleep (cores stay free for others).
            verify: Which bytes of the bundle are hashed and compared: those of files that changed since they were last
                verified, all, or none.
            weights: Whether weights are mapped, packed, or each graph's the way that suits it.
            ort_library: ONNX Runtime's library. None: `ORT_DYLIB_PATH` if it is set, else beside libpi0_edge (wheels
                have it there), then where packages install it, then the system's.
            engine_cache: The directory of the TensorRT engines. None: where `pi0-edge engines` puts them.

        Raises:
            Pi0Error: The bundle, ONNX Runtime or the provider is not what it must be; the text says what to do.
            ImportError: libpi0_edge cannot be loaded.
        """
        library = load()
        # Here, under Python's lock, so that the library finds it set and does not change the environment itself.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        options = PolicyOptions(
            ort_library=ort_library and os.fsencode(ort_library),
            engine_cache=engine_cache and os.fsencode(engine_cache),
            provider=number("provider", provider), gpu=gpu, device_memory=number("device_memory", device_memory),
            no_cuda_graphs=int(not cuda_graphs), threads=threads, verify=number("verify", verify),
            weights=number("weights", weights), no_spin=int(not spin),
        )
        handle, error = ctypes.c_void_p(), ErrorText()
        status = library.pi0_policy_new(os.fsencode(bundle), byref(options), byref(handle), byref(error))
        check(status, f"opening {os.fsdecode(bundle)}", error)
        return cls(handle.value)

    def __init__(self, handle: int | None) -> None:
        super().__init__(handle)
        self._library = load()
        self.info = Info()
        check(self._library.pi0_policy_info(handle, byref(self.info)), "pi0_policy_info")
        self.cameras: list[Camera] = []
        name, required = ctypes.create_string_buffer(4096), ctypes.c_uint32()
        for camera in range(self.info.cameras):
            status = self._library.pi0_policy_camera(handle, camera, name, len(name), byref(required))
            check(status, "pi0_policy_camera")
            self.cameras.append(Camera(name.value.decode(), bool(required.value)))

    def infer(
        self,
        images: Mapping[str, Pixels],
        state: npt.ArrayLike,
        prompt: str | None = None,
        *,
        seed: int = 0,
        noise: npt.ArrayLike | None = None,
        previous: npt.ArrayLike | None = None,
        inference_delay: int = 0,
        rtc: RtcConfig | None = None,
        num_steps: int | None = None,
        out: Floats | None = None,
    ) -> Floats:
        """Computes one chunk from one observation, on the calling thread and ONNX Runtime's workers.

        Arrays that are contiguous and of the dtype named are used where they are; others are copied first.

        Args:
            images: A frame for each camera that is present, by the policy's name or the robot's where the bundle
                renames it: uint8, (height, width, 3), RGB, rows from the top, sides of 1 to 16384 pixels.
            state: float32, (state_dim,), robot units.
            prompt: The task. None or empty for the bundle's default.
            seed: Seed of the noise, 0 to 2^64 - 1. The same seed gives the same noise on every machine.
            noise: The noise itself instead: float32, (action_horizon, padded_action_dim).
            previous: Guided real-time chunking: what is left of the chunk being executed, its first row due at the
                observation's capture: float32, (n, action_dim), robot units, n from 1 to action_horizon.
            inference_delay: Rows that will have been executed by the time the chunk is used.
            rtc: The settings of that guidance. None for lerobot's defaults.
            num_steps: Denoise steps, 1 to max_num_steps. None for the bundle's default.
            out: Where to write the actions: float32, (action_horizon, action_dim), contiguous. None for a new array.

        Returns:
            The actions, `out` if it was given: float32, (action_horizon, action_dim), robot units, first action first.

        Raises:
            Pi0Error: The observation does not fit, a value is not finite, or a graph failed; the policy can be used
                again. `Status.ERR_BUSY` if another thread is inside a call.
            TypeError: An array is of a dtype that is not taken.
            ValueError: An array has another shape, or noise and a seed were both given.
        """
        info = self.info
        frames = (Image * len(images))()
        kept: list[Pixels] = []
        for image, (camera, pixels) in zip(frames, images.items()):
            kept.append(np.ascontiguousarray(frame(camera, pixels)))
            image.camera, image.rgb = utf8("camera", camera), kept[-1].ctypes.data
            image.height, image.width = pixels.shape[:2]
        values = floats("state", state, (info.state_dim,))
        observation = Observation(
            images=ctypes.addressof(frames), image_count=len(frames), state=values.ctypes.data, state_len=values.size,
            prompt=utf8("prompt", prompt),
        )
        if num_steps == 0:
            raise ValueError("num_steps: 0; None stands for the bundle's default")
        options = InferOptions(seed=seed, inference_delay=inference_delay, num_steps=num_steps or 0)
        if noise is not None:
            if seed:
                raise ValueError("noise and seed were both given: give one")
            noise = floats("noise", noise, (info.action_horizon, info.padded_action_dim))
            options.noise, options.noise_len = noise.ctypes.data, noise.size
        if previous is not None:
            previous = floats("previous", previous, (None, info.action_dim))
            options.previous, options.previous_len = previous.ctypes.data, previous.size
        if rtc is not None:
            settings = rtc._c()
            options.rtc = ctypes.addressof(settings)
        actions = output("out", out, (info.action_horizon, info.action_dim))
        error = ErrorText()
        status = self._library.pi0_policy_infer(
            self._handle, byref(observation), byref(options), actions.ctypes.data, actions.size, byref(error)
        )
        check(status, "computing a chunk", error)
        return actions

    def timing(self) -> Timing:
        """Returns where the time of the last chunk went; all zero before the first.

        Raises:
            Pi0Error: The policy is closed, or busy.
        """
        timing = Timing()
        check(self._library.pi0_policy_timing(self._handle, byref(timing)), "pi0_policy_timing")
        return timing
