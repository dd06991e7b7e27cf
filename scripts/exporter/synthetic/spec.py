"""What a synthetic checkpoint looks like: every dimension and option, with the named sizes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .tokenizer import WORDS

OPENPI_CAMERAS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
FULL_CAMERAS = (
    "observation.images.base_0_rgb",
    "observation.images.left_wrist_0_rgb",
    "observation.images.right_wrist_0_rgb",
)


@dataclass(frozen=True)
class CheckpointSpec:
    """Dimensions and options of one checkpoint. The defaults are those of the published base models: PI0's
    where the two differ, unless ``policy`` is "pi05"."""

    seed: int = 0
    policy: str = "pi0"

    prefix_width: int = 2048
    prefix_mlp: int = 16384
    expert_width: int = 1024
    expert_mlp: int = 4096
    layers: int = 18
    heads: int = 8
    head_dim: int = 256

    vision_width: int = 1152
    vision_mlp: int = 4304
    vision_layers: int = 27
    vision_heads: int = 16
    patch_size: int = 14
    image_size: tuple[int, int] = (224, 224)
    vocab: int = 257152
    words: tuple[str, ...] = WORDS  # that the tokenizer learns

    cameras: tuple[str, ...] = FULL_CAMERAS
    empty_cameras: int = 0
    frame_size: tuple[int, int] = (480, 640)
    chunk_size: int = 50
    state_dim: int = 32
    action_dim: int = 32
    max_state_dim: int = 32
    max_action_dim: int = 32
    max_tokens: int = 48
    num_steps: int = 10

    storage: str = "f32"  # f32, bf16, or mixed: bf16 but for what lerobot keeps in f32
    policy_dtype: str = "float32"  # config.json's dtype
    normalization: str = "MEAN_STD"  # PI0.5's own default is QUANTILES
    relative: bool = False
    joints: tuple[str, ...] = ()  # names of an action's values; by default those of an arm with a gripper
    exclude_joints: tuple[str, ...] = ("gripper",)
    rename: dict[str, str] = field(default_factory=dict)
    model_prefix: bool = True
    embed_name: str = "lm_head"  # lm_head, embed_tokens, or both
    old_mlp_names: bool = False  # time_mlp_* in place of action_time_mlp_*; for PI0.5 the other way round
    old_processors: bool = False  # pipelines without the relative and absolute steps
    format: str = "lerobot"  # or openpi
    rtc_max_delay: int = 0  # PI0.5 trained for real-time chunking, with delays up to this
    outliers: bool = False  # channels and weights that stand out, see outliers.py

    @property
    def patches(self) -> int:
        height, width = self.image_size
        return (height // self.patch_size) * (width // self.patch_size)

    @property
    def action_names(self) -> list[str]:
        """Names of an action's values: ``joints``, or as a robot arm has them, the last one a gripper."""
        return list(self.joints) or [f"joint_{i}.pos" for i in range(self.action_dim - 1)] + ["gripper.pos"]

    def problems(self) -> list[str]:
        """Everything that keeps this from being a model, in words."""
        found = []
        for name, value in vars(self).items():
            if isinstance(value, int) and not isinstance(value, bool) and value < 1 and name not in ("seed", "empty_cameras", "rtc_max_delay"):
                found.append(f"{name} is {value}; it must be at least 1")
        if min(self.image_size) < self.patch_size:
            found.append(f"image size {self.image_size} is smaller than one patch of {self.patch_size}")
        if self.vision_width % self.vision_heads:
            found.append(f"vision width {self.vision_width} is not a multiple of {self.vision_heads} vision heads")
        if self.head_dim % 2 or self.expert_width % 2:
            found.append("head_dim and expert width must be even: rotary and time embeddings come in halves")
        if self.state_dim > self.max_state_dim or self.action_dim > self.max_action_dim:
            found.append("state and action must not be wider than their padded widths")
        if self.joints and len(self.joints) != self.action_dim:
            found.append(f"{len(self.joints)} joints are named, and an action has {self.action_dim} values")
        if self.relative and self.state_dim < self.action_dim:
            found.append("relative actions need a state at least as wide as the action")
        if self.format == "openpi" and (self.cameras != OPENPI_CAMERAS or self.max_state_dim != self.max_action_dim):
            found.append("openpi's policies have three cameras of fixed names, and one padded width for state and action")
        if self.format == "openpi" and self.image_size[0] != self.image_size[1]:
            found.append("openpi's images are square")
        if self.rtc_max_delay and (self.policy != "pi05" or self.format != "lerobot" or self.rtc_max_delay >= self.chunk_size):
            found.append("only lerobot's PI0.5 is trained for real-time chunking, with delays shorter than a chunk")
        if not self.cameras and not self.empty_cameras:
            found.append("at least one camera is needed")
        return found


SIZES = {
    "full": CheckpointSpec(),
    # A model of every width, small enough that export and inference take milliseconds.
    "small": CheckpointSpec(
        prefix_width=512, prefix_mlp=2048, expert_width=256, expert_mlp=1024, layers=6, heads=8, head_dim=64,
        vision_width=384, vision_mlp=1024, vision_layers=6, vision_heads=16, image_size=(112, 112), vocab=2048,
        state_dim=14, action_dim=14,
    ),
    # Three cameras, a state narrower than the action: nothing lines up by accident. Fits into git with its golden outputs.
    "tiny": CheckpointSpec(
        prefix_width=64, prefix_mlp=160, expert_width=32, expert_mlp=96, layers=3, heads=4, head_dim=16,
        vision_width=48, vision_mlp=112, vision_layers=2, vision_heads=16, image_size=(56, 56), vocab=512,
        cameras=("observation.images.base", "observation.images.wrist", "observation.images.side"),
        frame_size=(48, 64), chunk_size=10, state_dim=6, action_dim=7, max_tokens=24,
    ),
}


def make_spec(size: str, **changes) -> CheckpointSpec:
    """The named size with the given fields replaced; ``None`` leaves a field as it is."""
    changes = {name: value for name, value in changes.items() if value is not None}
    if changes.get("policy") == "pi05":
        # The prompt holds the state, which takes tokens, and a normalisation that bounds it.
        changes = {"normalization": "QUANTILES", "max_tokens": 200, **changes}
    if changes.get("format") == "openpi":
        changes = {"cameras": OPENPI_CAMERAS, "model_prefix": False, "embed_name": "embed_tokens", **changes}
    return replace(SIZES[size], **changes)
