"""A bundle behind lerobot's policy interface."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from lerobot.configs import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import OBS_IMAGES, OBS_STATE
from pi0_edge import Policy, RtcConfig
from torch import Tensor

from .configuration_pi0_edge import NO_TRAINING, Pi0EdgeConfig


class Pi0EdgePolicy(PreTrainedPolicy):
    """PI0 or PI0.5 as pi0-edge computes it.

    Takes what lerobot's own policy takes before its processors, one observation at a time, and gives actions in robot
    units: (1, n, action_dim) float32, on the device that the state came on. Noise is drawn as lerobot draws it, so that
    the same torch seed gives the same actions. One thread at a time.
    """

    config_class = Pi0EdgeConfig
    name = "pi0_edge"

    def __init__(self, config: Pi0EdgeConfig, bundle: str | Path | None = None, **_: Any) -> None:
        super().__init__(config)
        if bundle is None:
            raise ValueError(f"a pi0_edge policy needs a bundle: --policy.path=BUNDLE. {NO_TRAINING}")
        device = torch.device(config.device or "cpu")
        self.engine = Policy.load(
            bundle, provider=config.provider or ("cuda" if device.type == "cuda" else "cpu"), gpu=device.index or 0,
            threads=config.threads, ort_library=config.ort_library,
        )
        if self.engine.info.action_horizon != config.chunk_size:
            horizon = self.engine.info.action_horizon
            raise ValueError(f"chunk_size: {config.chunk_size}, but the chunks of {bundle} have {horizon} actions")
        self._cameras = {_key(camera.name): camera.name for camera in self.engine.cameras}
        self.reset()

    @classmethod
    def from_pretrained(
        cls, pretrained_name_or_path: str | Path, *, config: PreTrainedConfig | None = None, revision: str | None = None, **kwargs: Any
    ) -> Pi0EdgePolicy:
        """Opens a bundle: a directory, or a repository of the Hub, which is fetched.

        Raises:
            FileNotFoundError: It has no config.json; scripts/lerobot_files.py writes it into a bundle that has none.
            pi0_edge.Pi0Error: It cannot be opened; the text says why.
        """
        bundle = Path(pretrained_name_or_path)
        if not bundle.is_dir():
            bundle = Path(snapshot_download(str(pretrained_name_or_path), revision=revision))
        if config is None:
            config = PreTrainedConfig.from_pretrained(bundle)
        policy = cls(config, bundle)
        policy.eval()
        return policy

    def supports_rtc(self) -> bool:
        return True

    def reset(self) -> None:
        """Forgets the actions that `select_action` has left: the next episode begins with a chunk of its own."""
        self._left: deque[Tensor] = deque()

    @torch.no_grad()
    def select_action(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        """Returns the next action, (1, action_dim), computing a chunk where none is left.

        Raises:
            RuntimeError: Real-time chunking is on, which wants `predict_action_chunk`.
        """
        if self._rtc() is not None:
            raise RuntimeError("real-time chunking is on: use predict_action_chunk, as lerobot's own policies want it too")
        if not self._left:
            self._left.extend(self.predict_action_chunk(batch, **kwargs)[:, : self.config.n_action_steps].transpose(0, 1))
        return self._left.popleft()

    @torch.no_grad()
    def predict_action_chunk(
        self,
        batch: dict[str, Any],
        *,
        noise: Tensor | None = None,
        num_steps: int | None = None,
        inference_delay: int | None = None,
        prev_chunk_left_over: Tensor | None = None,
        execution_horizon: int | None = None,
        **_: Any,
    ) -> Tensor:
        """Computes a chunk, (1, chunk_size, action_dim), from a batch of one observation.

        Args:
            batch: `observation.state` (1, state_dim); a camera's image (1, 3, h, w) or (1, h, w, 3), float of 0 to 1 or
                uint8, cameras may be absent as the bundle allows; `task`, a text or a list of one.
            noise: (1, chunk_size, padded action width). None: drawn from torch's generator.
            num_steps: Denoise steps. None for `num_inference_steps`.
            inference_delay: Rows that will have been executed by the time the chunk is used.
            prev_chunk_left_over: What is left of the chunk being executed, as this policy gave it: (n, action_dim),
                robot units. Rows of nothing but zeros at its end, which lerobot pads it with, are dropped.
            execution_horizon: Where guidance ends. None for that of `rtc_config`.

        Raises:
            ValueError: The batch is not of one observation, or an image holds what no image holds.
            pi0_edge.Pi0Error: The observation does not fit the bundle.
        """
        state = batch[OBS_STATE]
        if state.ndim != 2 or state.shape[0] != 1:
            raise ValueError(f"{OBS_STATE}: shape {tuple(state.shape)}; pi0_edge computes one observation at a time: (1, state_dim) is taken")
        info = self.engine.info
        if noise is None:
            noise = torch.normal(0.0, 1.0, (1, info.action_horizon, info.padded_action_dim), dtype=torch.float32, device=state.device)
        previous, guidance = self._guidance(prev_chunk_left_over, execution_horizon)
        actions = self.engine.infer(
            {camera: _pixels(key, batch[key]) for key, camera in self._cameras.items() if key in batch},
            state[0].float().cpu().numpy(),
            _task(batch.get("task")),
            noise=noise.reshape(noise.shape[-2:]).float().cpu().numpy(),
            previous=previous,
            rtc=guidance,
            inference_delay=inference_delay or 0,
            num_steps=num_steps or self.config.num_inference_steps,
        )
        return torch.from_numpy(actions)[None].to(state.device)

    def _rtc(self) -> Any:
        settings = self.config.rtc_config
        return settings if settings is not None and settings.enabled else None

    def _guidance(self, left: Tensor | None, horizon: int | None) -> tuple[np.ndarray | None, RtcConfig | None]:
        """Returns the rows that guide a chunk, and how they do; None where lerobot would not guide."""
        settings = self._rtc()
        if settings is None or left is None:
            return None, None
        rows = left.reshape(left.shape[-2:]).float().cpu().numpy()
        used = np.flatnonzero(np.any(rows != 0, axis=1))
        if not used.size:
            return None, None
        rows = rows[: used[-1] + 1]
        return rows, RtcConfig(
            schedule=settings.prefix_attention_schedule.name.lower(),
            execution_horizon=min(horizon or settings.execution_horizon, len(rows)),
            max_guidance_weight=float(settings.max_guidance_weight),
        )

    def forward(self, batch: dict[str, Tensor]) -> Any:
        raise NotImplementedError(NO_TRAINING)

    def get_optim_params(self) -> dict[str, Any]:
        raise NotImplementedError(NO_TRAINING)

    def _save_pretrained(self, save_directory: Path, **_: Any) -> None:
        raise NotImplementedError(f"copy the bundle's directory instead. {NO_TRAINING}")


def _key(camera: str) -> str:
    """Returns lerobot's name of a camera: openpi's have no prefix."""
    return camera if camera.startswith(OBS_IMAGES) else f"{OBS_IMAGES}.{camera}"


def _task(task: str | list[str] | tuple[str, ...] | None) -> str | None:
    if task is None or isinstance(task, str):
        return task
    if len(task) != 1:
        raise ValueError(f"task: {len(task)} texts; pi0_edge computes one observation at a time")
    return task[0]


def _pixels(key: str, image: Tensor) -> np.ndarray:
    """Returns an image of lerobot's as bytes of RGB, (height, width, 3)."""
    if image.ndim != 4 or image.shape[0] != 1 or 3 not in (image.shape[1], image.shape[3]):
        raise ValueError(f"{key}: shape {tuple(image.shape)}; (1, 3, height, width) or (1, height, width, 3) is taken")
    image = image[0].permute(1, 2, 0) if image.shape[1] == 3 else image[0]
    if image.dtype != torch.uint8:
        if not image.is_floating_point():
            raise ValueError(f"{key}: dtype {image.dtype}; float of 0 to 1, or uint8, is taken")
        low, high = (float(end) for end in torch.aminmax(image))
        # Written so that NaN, which every comparison is false for, does not pass.
        if not (low >= 0 and high <= 1):
            raise ValueError(f"{key}: values from {low} to {high}; 0 to 1, or uint8, is taken")
        image = (image.float() * 255).round().to(torch.uint8)
    return np.ascontiguousarray(image.cpu().numpy())
