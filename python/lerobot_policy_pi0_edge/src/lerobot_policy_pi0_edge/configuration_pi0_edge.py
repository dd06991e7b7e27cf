"""The settings that `--policy....` sets. The exporter writes them into a bundle's config.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lerobot.configs import PreTrainedConfig
from lerobot.policies.rtc.configuration_rtc import RTCConfig


@PreTrainedConfig.register_subclass("pi0_edge")
@dataclass
class Pi0EdgeConfig(PreTrainedConfig):
    """Settings of a bundle as a policy of lerobot.

    Attributes:
        chunk_size: Actions of a chunk, as the bundle has it.
        n_action_steps: How many of them `select_action` uses before it computes the next chunk.
        action_feature_names: The robot's names of the actions, in their order; None where the checkpoint has none.
        rtc_config: Real-time chunking; lerobot's rollout sets it.
        num_inference_steps: Denoise steps. None for the bundle's default.
        provider: What computes: cpu, cuda or tensorrt. None: cuda where `device` is a GPU, else cpu.
        threads: Threads of one operator, the calling thread included. 0: one per available core.
        ort_library: ONNX Runtime's library. None: where pi0_edge finds it.
    """

    chunk_size: int = 50
    n_action_steps: int = 50
    action_feature_names: list[str] | None = None
    rtc_config: RTCConfig | None = None
    num_inference_steps: int | None = None
    provider: str | None = None
    threads: int = 0
    ort_library: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.n_action_steps <= self.chunk_size:
            raise ValueError(f"n_action_steps: {self.n_action_steps}; 1 to chunk_size, {self.chunk_size}, is taken")

    @property
    def observation_delta_indices(self) -> None:
        return None

    @property
    def action_delta_indices(self) -> list[int]:
        return list(range(self.chunk_size))

    @property
    def reward_delta_indices(self) -> None:
        return None

    def validate_features(self) -> None:
        """Does nothing: a bundle's features are what it was exported with."""

    def get_optimizer_preset(self) -> Any:
        raise NotImplementedError(NO_TRAINING)

    def get_scheduler_preset(self) -> Any:
        raise NotImplementedError(NO_TRAINING)


NO_TRAINING = "a pi0_edge bundle is for inference; train the checkpoint it was exported from, and export that again"
