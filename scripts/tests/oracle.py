"""PI0's and PI0.5's inference as lerobot computes it: masked, padded, one head and one view at a time, in double precision.

Written from the description of the reference, not from the exporter: it reads the checkpoint itself, keeps absent cameras and
padding in the sequence behind a mask, repeats keys for every head, embeds the time in every step, and folds nothing. Slow and
plain on purpose.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import ml_dtypes
import numpy as np

MASK = -2.3819763e38
STORED = {"F32": np.float32, "BF16": ml_dtypes.bfloat16}


def load_weights(path: Path) -> dict[str, np.ndarray]:
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__", None)
    data = raw[8 + length :]
    weights = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        values = np.frombuffer(data[start:end], STORED[entry["dtype"]]).reshape(entry["shape"])
        name = name[len("model.") :] if name.startswith("model.") else name
        name = name.replace("action_time_mlp", "time_mlp") if name.startswith("action_time_mlp") else name
        weights[name] = values.astype(np.float64)
    return weights


def gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def silu(x):
    return x / (1 + np.exp(-x))


def layer_norm(x, weight, bias):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * weight + bias


def rms_norm(x, weight):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * (1 + weight)


def frequencies(head_dim: int, rounded: bool) -> np.ndarray:
    """Rotary frequencies; rounded to bf16 where lerobot runs the policy in bfloat16."""
    powers = np.array([10000.0 ** (2 * i / head_dim) for i in range(head_dim // 2)])
    inverse = np.float32(1) / powers.astype(np.float32)
    return inverse.astype(ml_dtypes.bfloat16).astype(np.float32) if rounded else inverse


def rotate(x, positions, inverse):
    """x [rows, head_dim]; first and second half of a head make the pairs."""
    angles = (positions.astype(np.float32)[:, None] * inverse[None, :]).astype(np.float64)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    half = x.shape[1] // 2
    left, right = x[:, :half], x[:, half:]
    return np.concatenate([left * cos - right * sin, right * cos + left * sin], 1)


def time_embedding(time: float, width: int, min_period: float, max_period: float):
    fraction = np.linspace(0, 1, width // 2)
    period = min_period * (max_period / min_period) ** fraction
    angle = 2 * math.pi / period * float(np.float32(time))
    return np.concatenate([np.sin(angle), np.cos(angle)]).astype(np.float32).astype(np.float64)


def attention_mask(pad, att):
    """Who sees whom: blocks of a growing count of ``att``, and no padding."""
    block = np.cumsum(att)
    return (block[None, :] <= block[:, None]) & pad[None, :] & pad[:, None]


class Oracle:
    def __init__(self, checkpoint: Path, vision_heads: int):
        self.w = load_weights(checkpoint / "model.safetensors")
        self.config = json.loads((checkpoint / "config.json").read_text())
        self.openpi = "type" not in self.config  # openpi's code has the rest as constants
        self.config = {"dtype": "float32", "min_period": 4e-3, "max_period": 4.0, **self.config}
        self.pi05 = "paligemma_with_expert.gemma_expert.model.norm.dense.weight" in self.w
        self.vision_heads = vision_heads
        language = "paligemma_with_expert.paligemma.model.language_model."
        self.embedding = self.w.get(language + "embed_tokens.weight")
        if self.embedding is None:
            self.embedding = self.w["paligemma_with_expert.paligemma.lm_head.weight"]
        self.prefix, self.expert = language, "paligemma_with_expert.gemma_expert.model."
        self.head_dim = self.w[language + "layers.0.self_attn.k_proj.weight"].shape[0]
        self.heads = self.w[language + "layers.0.self_attn.q_proj.weight"].shape[0] // self.head_dim
        self.layers = sum(name.startswith(language) and name.endswith("k_proj.weight") for name in self.w)
        self.inverse = frequencies(self.head_dim, self.config["dtype"] == "bfloat16")

    def linear(self, name, x):
        y = x @ self.w[name + ".weight"].T
        return y + self.w[name + ".bias"] if name + ".bias" in self.w else y

    # -- vision ---------------------------------------------------------------------------------------------------------

    def image_tokens(self, image):
        """image [3, height, width] -> [tokens, prefix width]."""
        root = "paligemma_with_expert.paligemma.model.vision_tower.vision_model."
        kernel = self.w[root + "embeddings.patch_embedding.weight"]
        size = kernel.shape[2]
        rows, columns = image.shape[1] // size, image.shape[2] // size
        x = np.stack([
            np.tensordot(kernel, image[:, r * size : (r + 1) * size, c * size : (c + 1) * size].astype(np.float64), 3)
            for r in range(rows) for c in range(columns)
        ])
        x = x + self.w[root + "embeddings.patch_embedding.bias"] + self.w[root + "embeddings.position_embedding.weight"]
        layer = 0
        while f"{root}encoder.layers.{layer}.layer_norm1.weight" in self.w:
            name = f"{root}encoder.layers.{layer}."
            x = x + self._vision_attention(name, self._layer_norm(name + "layer_norm1", x))
            hidden = gelu(self.linear(name + "mlp.fc1", self._layer_norm(name + "layer_norm2", x)))
            x = x + self.linear(name + "mlp.fc2", hidden)
            layer += 1
        x = self._layer_norm(root + "post_layernorm", x)
        return self.linear("paligemma_with_expert.paligemma.model.multi_modal_projector.linear", x)

    def _layer_norm(self, name, x):
        return layer_norm(x, self.w[name + ".weight"], self.w[name + ".bias"])

    def _vision_attention(self, name, x):
        q, k, v = (self.linear(f"{name}self_attn.{part}_proj", x) for part in "qkv")
        size = q.shape[1] // self.vision_heads
        mixed = []
        for head in range(self.vision_heads):
            part = slice(head * size, (head + 1) * size)
            mixed.append(softmax(q[:, part] @ k[:, part].T * size**-0.5) @ v[:, part])
        return self.linear(name + "self_attn.out_proj", np.concatenate(mixed, 1))

    # -- the two Gemmas -------------------------------------------------------------------------------------------------

    def _norm(self, name, x, condition):
        """The norm and the gate of the branch that begins with it. PI0.5's expert takes scale, shift and gate from the time."""
        if condition is None:
            return rms_norm(x, self.w[name + ".weight"]), 1.0
        scale, shift, gate = np.split(self.linear(name + ".dense", condition), 3, axis=-1)
        return rms_norm(x, scale) + shift, gate

    def _gemma(self, root, x, positions, mask, cache, condition=None):
        """All layers over ``x``; ``cache`` holds the keys and values of what comes before. Returns x and all keys and values."""
        filled = []
        for layer in range(self.layers):
            name = f"{root}layers.{layer}."
            normed, gate = self._norm(name + "input_layernorm", x, condition)
            q, k, v = (self.linear(f"{name}self_attn.{part}_proj", normed) for part in "qkv")
            k = rotate(k, positions, self.inverse)
            if cache is not None:
                k, v = np.concatenate([cache[layer][0], k]), np.concatenate([cache[layer][1], v])
            filled.append((k, v))
            mixed = []
            for head in range(self.heads):
                query = rotate(q[:, head * self.head_dim : (head + 1) * self.head_dim], positions, self.inverse)
                mixed.append(softmax(query @ k.T * self.head_dim**-0.5 + np.where(mask, 0.0, MASK)) @ v)
            x = x + self.linear(name + "self_attn.o_proj", np.concatenate(mixed, 1)) * gate
            normed, gate = self._norm(name + "post_attention_layernorm", x, condition)
            hidden = gelu(self.linear(name + "mlp.gate_proj", normed)) * self.linear(name + "mlp.up_proj", normed)
            x = x + self.linear(name + "mlp.down_proj", hidden) * gate
        return x, filled

    def run_prefix(self, images, present, tokens, max_tokens):
        """images [views, 3, h, w], present [views], token ids -> (keys and values per layer, mask of valid rows)."""
        parts, pad = [], []
        for image, there in zip(images, present):
            embedded = self.image_tokens(image if there else np.full_like(image, -1))
            parts.append(embedded)
            pad += [there] * len(embedded)
        ids = np.zeros(max_tokens, np.int64)
        ids[: len(tokens)] = tokens
        parts.append(self.embedding[ids] * float(np.float32(math.sqrt(self.embedding.shape[1]))))
        pad += [i < len(tokens) for i in range(max_tokens)]
        pad = np.array(pad, bool)
        mask = attention_mask(pad, np.zeros(len(pad), int))
        _, cache = self._gemma(self.prefix, np.concatenate(parts), np.cumsum(pad) - 1, mask, None)
        return cache, pad

    def condition(self, time, width):
        embedded = time_embedding(time, width, self.config["min_period"], self.config["max_period"])
        return silu(self.linear("time_mlp_out", silu(self.linear("time_mlp_in", embedded))))

    def velocity(self, x_t, time, state, cache, pad, clean=0):
        """``clean`` rows at the beginning have the time 0."""
        suffix = self.linear("action_in_proj", x_t)
        width = suffix.shape[1]
        embedded = time_embedding(time, width, self.config["min_period"], self.config["max_period"])
        blocks, condition = [1] + [0] * (len(suffix) - 1), None
        if self.pi05:
            times = [0.0] * clean + [time] * (len(x_t) - clean)
            condition = np.stack([self.condition(t, width) for t in times])
        else:
            hidden = self.linear("time_mlp_in", np.concatenate([suffix, np.tile(embedded, (len(suffix), 1))], 1))
            suffix = np.concatenate([self.linear("state_proj", state[None]), self.linear("time_mlp_out", silu(hidden))])
            blocks = [1, *blocks]
        own = attention_mask(np.ones(len(suffix), bool), np.array(blocks))
        mask = np.concatenate([np.tile(pad, (len(suffix), 1)), own], 1)
        x, _ = self._gemma(self.expert, suffix, pad.sum() + np.arange(len(suffix)), mask, cache, condition)
        x, _ = self._norm(self.expert + "norm", x, condition)
        return self.linear("action_out_proj", x[-len(x_t) :])

    def times(self, steps):
        """The time of each step; openpi counts in f32."""
        if self.openpi:
            return np.cumsum(np.float32([1.0] + [-1.0 / steps] * (steps - 1)), dtype=np.float32).tolist()
        return [1.0 + k * (-1.0 / steps) for k in range(steps)]

    def sample(self, noise, state, cache, pad, steps, previous=None, weights=None, max_guidance=10.0, clean=0):
        """The Euler loop; with ``previous`` and its row ``weights``, guided as real-time chunking does, or with ``clean`` rows of
        ``previous`` kept as they are. Returns x and all v."""
        x, velocities = noise.astype(np.float64), []
        for time in self.times(steps):
            t = float(np.float32(time))
            x[:clean] = previous[:clean] if clean else x[:0]
            v = self.velocity(x, time, state, cache, pad, clean)
            velocities.append(v)
            if weights is not None:
                error = (previous - (x - t * v)) * weights[:, None]
                v = v - guidance(t, max_guidance) * error
            x = x - v / steps
            x[:clean] = previous[:clean] if clean else x[:0]
        return x, np.stack(velocities)


def guidance(time: float, limit: float) -> float:
    """Guidance weight at flow time ``time``."""
    tau = 1 - time
    if tau == 0:
        return limit
    return min((1 - tau) / tau * (tau**2 + (1 - tau) ** 2) / (1 - tau) ** 2, limit)
