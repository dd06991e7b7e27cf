"""A checkpoint of openpi's: what openpi does around the network, from Pillow and numpy, and lerobot's modules as the network.

openpi's own code cannot be installed from a package registry. Its weights are lerobot's, name for name; images, state, prompt, the
times of the steps and the actions follow openpi's rules here.
"""

import json
import math
import pathlib
from unittest import mock

import numpy as np
import torch
from exporter.errors import ExportError
from exporter.sentencepiece import read_sentencepiece
from exporter.tokenizer import SENTENCEPIECE, find_tokenizer
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.pi0 import modeling_pi0
from lerobot.policies.pi0.configuration_pi0 import PI0Config
from lerobot.policies.pi05 import modeling_pi05
from lerobot.policies.pi05.configuration_pi05 import PI05Config
from PIL import Image
from safetensors import safe_open
from tokenizers import Tokenizer

from .dimensions import EXPERT, TOWER, CheckpointError
from .loading import VISION_HEADS, load_policy
from .recording import COMPACTION_LIMIT, DisagreementError, Recording, prefix_cache, tap

CAMERAS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
CONFIGS = {"pi0": (PI0Config, modeling_pi0), "pi05": (PI05Config, modeling_pi05)}
EPS = 1e-6
# ALOHA's joints turn the other way in these places, of either arm.
JOINT_FLIPS = np.array([1, -1, -1, 1, 1, 1, 1] * 2)


def wrote(directory):
    """Whether openpi wrote the checkpoint, as export.py decides it."""
    path, weights = (pathlib.Path(directory) / name for name in ("config.json", "model.safetensors"))
    if path.is_file():
        return "type" not in json.loads(path.read_text(encoding="utf-8-sig"))
    if not weights.is_file():
        return False
    with safe_open(weights, framework="pt") as file:
        return not any(key.startswith("model.") for key in file.keys())


class OpenpiReference:
    """`told`: what openpi has in its training configuration, under the names of export.py's options."""

    truncates = True

    def __init__(self, directory, vision_heads=VISION_HEADS, told=None):
        self.directory, self.told = pathlib.Path(directory), {k: v for k, v in (told or {}).items() if v is not None}
        with safe_open(self.directory / "model.safetensors", framework="pt") as file:
            shapes = {key.replace("_orig_mod.", "").removeprefix("model."): file.get_slice(key).get_shape() for key in file.keys()}
        path = self.directory / "config.json"
        written = json.loads(path.read_text(encoding="utf-8-sig")) if path.is_file() else {}
        # What both name is told by either.
        for key, option in (("action_horizon",) * 2, ("max_token_len", "max_tokens"), ("discrete_state_input", "state_in_prompt")):
            if written.get(key) is not None:
                self.told[option] = written[key]
        if "action_horizon" not in self.told:
            raise CheckpointError(f"{path} not found: give --action-horizon")
        width = written.get("action_dim", shapes["action_in_proj.weight"][1])
        kind = "pi05" if EXPERT + "norm.dense.weight" in shapes else "pi0"
        side = math.isqrt(shapes[TOWER + "embeddings.position_embedding.weight"][0])
        side *= shapes[TOWER + "embeddings.patch_embedding.weight"][2]
        build, self.modeling = CONFIGS[kind]
        self.max_tokens = self.told.get("max_tokens", 200 if kind == "pi05" else 48)
        self.config = build(
            device="cpu", dtype="bfloat16" if self.told.get("rotary") == "bf16" else "float32",
            chunk_size=self.told["action_horizon"], n_action_steps=self.told["action_horizon"],
            max_state_dim=width, max_action_dim=width, image_resolution=(side, side), tokenizer_max_length=self.max_tokens,
            input_features={key: PolicyFeature(FeatureType.VISUAL, (3, side, side)) for key in CAMERAS},
            output_features={"action": PolicyFeature(FeatureType.ACTION, (width,))},
        )  # fmt: skip
        self.policy, self.dimensions = load_policy(self.directory, self.config, vision_heads)
        self.cameras, self.renamed = list(CAMERAS), {}
        self.quantiles = kind == "pi05"
        self.state_in_prompt = self.told.get("state_in_prompt", kind == "pi05")
        stats = self._statistics()
        self.state, self.action = (self._of(stats[name], option) for name, option in (("state", "state_dim"), ("actions", "action_dim")))
        self.state_dim, self.action_dim = len(self.state[0]), len(self.action[0])
        self.adapt_to_pi = self.told.get("adapt_to_pi", False)
        # A state that was padded before its statistics were taken is so in the prompt.
        padded = self._of(stats["state"], None)
        if not any(values[self.state_dim :].any() for values in padded):
            self.state = padded
        self.tokenizer = _tokenizer(self.directory, self.told.get("tokenizer"))

    def _statistics(self):
        place, assets = self.told.get("norm_stats"), self.directory / "assets"
        # A name below assets comes before a directory or a file of that name elsewhere.
        place = assets if place is None else assets / place if (assets / place).exists() else pathlib.Path(place)
        found = [place] if place.is_file() else sorted(place.rglob("norm_stats.json"))
        if len(found) != 1:
            raise CheckpointError(f"{place} holds {len(found)} norm_stats.json: choose one with --norm-stats")
        return json.loads(found[0].read_text())["norm_stats"]

    def _of(self, stats, option):
        names = ("q01", "q99") if self.quantiles else ("mean", "std")
        return tuple(np.array(stats[name], np.float64)[: self.told.get(option)] for name in names)

    def normalized(self, state):
        """The whole state that there are statistics of, as training padded it, in f64."""
        first, second = self.state
        state = self.of_robot(state)
        state = np.pad(state, (0, len(first) - len(state)))
        if self.quantiles:
            return (state - first) / (second - first + EPS) * 2.0 - 1.0
        return (state - first) / (second + EPS)

    def of_robot(self, state):
        """The robot's state as the policy was trained with it."""
        if not self.adapt_to_pi:
            return state
        flipped = state.astype(np.float64) * JOINT_FLIPS
        opening = flipped[[6, 13]] * (0.05800 - 0.01844) + 0.01844
        angle = np.arcsin(np.clip((0.022**2 + opening**2 - 0.036**2) / (2 * 0.022 * opening), -1.0, 1.0))
        flipped[[6, 13]] = (angle - 0.5476) / (1.6296 - 0.5476)
        return flipped

    def to_robot(self, actions):
        if self.adapt_to_pi:
            actions = actions * JOINT_FLIPS
            actions[:, [6, 13]] = (actions[:, [6, 13]] + 0.5476 + 0.6213) / (1.4910 + 0.6213)
        return actions

    def actions(self, chunk, state):
        """A chunk [horizon, width] in f32 and the raw state to actions in robot units."""
        first, second = self.action
        rows = chunk[:, : self.action_dim]
        rows = (rows + 1.0) / 2.0 * (second - first + EPS) + first if self.quantiles else rows * (second + EPS) + first
        mask = self.delta_mask()
        state = self.of_robot(state)
        padded = np.pad(state.astype(np.float64), (0, self.config.max_state_dim - len(state)))
        rows[:, : len(mask)] += np.where(mask, padded[: len(mask)], 0)
        return self.to_robot(rows)

    def delta_mask(self):
        given = self.told.get("delta_actions", "none")
        runs = [] if given == "none" else [int(run) for run in given.split(",")]
        return np.array([run > 0 for run in runs for _ in range(abs(run))], bool)

    def text(self, prompt, state):
        cleaned = prompt.strip().replace("_", " ").replace("\n", " ")
        if not self.state_in_prompt:
            return cleaned + "\n"
        bins = np.digitize(self.normalized(state), np.linspace(-1, 1, 257)[:-1]) - 1
        return f"Task: {cleaned}, State: {' '.join(map(str, bins))};\nAction: "

    def tokens(self, prompt, state):
        """With the newline of PI0's prompt encoded by itself."""
        text = self.text(prompt, state)
        if self.state_in_prompt:
            return self.tokenizer.encode(text).ids
        alone = self.tokenizer.encode("\n", add_special_tokens=False).ids
        return self.tokenizer.encode(text[:-1]).ids + alone

    def prompt_tokens(self, prompt, state):
        return len(self.tokens(prompt, state))

    def pixels(self, frame):
        """A uint8 frame to [3, side, side], as the model sees it."""
        side = self.config.image_resolution[0]
        if frame.shape[:2] != (side, side):
            ratio = max(frame.shape[1] / side, frame.shape[0] / side)
            size = int(frame.shape[1] / ratio), int(frame.shape[0] / ratio)
            view = Image.new("RGB", (side, side), 0)
            resized = Image.fromarray(frame).resize(size, resample=Image.Resampling.BILINEAR)
            view.paste(resized, (int((side - size[0]) / 2), int((side - size[1]) / 2)))
            frame = np.array(view)
        return (frame.astype(np.float32) / 255.0 * 2.0 - 1.0).transpose(2, 0, 1)


def _tokenizer(directory, given):
    """The one that export.py takes; of a sentencepiece model, what export.py makes of it."""
    try:
        path = find_tokenizer(directory, None, given)
        content = read_sentencepiece(path) if path.suffix == SENTENCEPIECE else json.loads(path.read_bytes())
    except ExportError as error:
        raise CheckpointError(str(error)) from error
    return Tokenizer.from_str(json.dumps(content))


def integrate(denoise, noise, num_steps, **_):
    """openpi's Euler loop: the time is a float32 that grows by a float32."""
    dt, time, x_t = torch.tensor(-1.0 / num_steps), torch.tensor(1.0), noise
    while time >= -dt / 2:
        x_t = x_t + dt * denoise(x_t, time.expand(len(noise)))
        time = time + dt
    return x_t


# Times that record() has the policy run: with the stages tapped, and without the masked rows.
RUNS = 2


@torch.no_grad()
def record(reference, case):
    model = reference.policy.model
    pixels = {key: reference.pixels(case.images[key]) for key in reference.cameras if key in case.images}
    blank = np.full((3, *reference.config.image_resolution), -1, np.float32)
    # Slots are fixed, and those without a camera masked.
    images = [torch.from_numpy(pixels.get(key, blank))[None] for key in reference.cameras]
    masks = [torch.tensor([key in pixels]) for key in reference.cameras]
    tokens = reference.tokens(case.prompt, case.state)[: reference.max_tokens]
    padded = torch.zeros(1, reference.max_tokens, dtype=torch.long)
    padded[0, : len(tokens)] = torch.tensor(tokens)
    mask = torch.arange(reference.max_tokens)[None] < len(tokens)
    state = np.zeros(reference.config.max_state_dim, np.float32)
    values = reference.normalized(case.state)
    state[: len(values)] = values
    state = [torch.from_numpy(state)[None]] if reference.config.type == "pi0" else []
    noise = torch.from_numpy(case.noise)[None]

    def sample(images, masks, tokens, mask):
        with mock.patch.object(reference.modeling, "euler_integrate", integrate):
            return model.sample_actions(images, masks, tokens, mask, *state, noise=noise, num_steps=case.num_steps)[0]

    embeds, prefixes, steps = [], [], []
    with (
        tap(model.paligemma_with_expert, "embed_image", embeds, lambda args, result: result[0]),
        tap(model.paligemma_with_expert, "forward", prefixes, prefix_cache),
        tap(model, "denoise_step", steps, lambda args, result: (args, result[0].clone())),
    ):
        chunk = sample(images, masks, padded, mask)
    there = [i for i, key in enumerate(reference.cameras) if key in pixels]
    compact = sample([images[i] for i in there], [masks[i] for i in there], padded[:, : len(tokens)], mask[:, : len(tokens)])
    error = ((compact - chunk).abs().max() / chunk.abs().max()).item()
    if error > COMPACTION_LIMIT:
        raise DisagreementError(f"{case.name}: leaving out masked prefix rows changes the chunk by {error:.1e}")
    valid = steps[0][0]["prefix_pad_masks"][0]
    keys, values = next(cache for cache in prefixes if cache is not None)
    return Recording(
        tokens=tokens,
        pixel_values=np.stack(list(pixels.values())),
        image_embeds=torch.stack([embeds[i] for i in there]).numpy(),
        keys=torch.stack(keys)[:, valid].numpy(),
        values=torch.stack(values)[:, valid].numpy(),
        v_t=torch.stack([v_t for _, v_t in steps]).numpy(),
        actions_normalized=chunk.numpy(),
        actions=reference.actions(chunk.numpy(), case.state).astype(np.float32),
    )
