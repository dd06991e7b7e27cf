"""Replays a bundle's golden data with ONNX Runtime's Python package: the runtime's work, in numpy.

Written from the bundle format alone, so it also holds the manifest to account. Stands in
for `pi0-edge check` where the binary is not built.
"""

import json
import pathlib

import numpy as np
import onnxruntime
from PIL import Image
from tokenizers import Tokenizer

f32 = np.float32


class Bundle:
    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.manifest = json.loads((self.directory / "manifest.json").read_text(encoding="utf-8"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.sessions = {
            name: onnxruntime.InferenceSession(str(self.directory / graph["file"]), options, providers=["CPUExecutionProvider"])
            for name, graph in self.manifest["graphs"].items()
        }
        table = self.manifest["token_embedding"]
        self.token_rows = np.memmap(self.directory / table["file"], f32, "r", shape=(table["rows"], table["width"]))

    def run(self, graph, **inputs):
        session = self.sessions[graph]
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, inputs)))

    def worst_errors(self):
        """{"case stage": error relative to the largest number, as a share of the tolerance}"""
        golden = json.loads((self.directory / self.manifest["golden"]).read_text(encoding="utf-8"))
        home = (self.directory / self.manifest["golden"]).parent
        errors = {}
        for case in golden["cases"]:
            got = self.infer(home / case["observation"], np.load(home / case["noise"]), case["num_steps"])
            assert got.pop("tokens") == case["expected"].pop("tokens"), case["name"]
            for stage, entry in case["expected"].items():
                want, array = np.load(home / entry["file"]), got[stage]
                if stage in ("keys", "values"):
                    array = array.reshape(len(array), -1)[:, :: entry["stride"]]
                elif entry["stride"] > 1 or want.ndim == 1:
                    array = array.reshape(-1)[:: entry["stride"]]
                assert array.shape == want.shape, (case["name"], stage, array.shape, want.shape)
                errors[f"{case['name']} {stage}"] = float(np.abs(array - want).max() / np.abs(want).max())
        return errors

    def infer(self, observation_file, noise, num_steps):
        manifest, dimensions = self.manifest, self.manifest["dimensions"]
        observation = json.loads(observation_file.read_text(encoding="utf-8"))
        images = {manifest["rename"].get(key, key): file for key, file in observation["images"].items()}
        frames = [images[camera["name"]] for camera in manifest["cameras"] if camera["name"] in images]
        assert len(frames) == len(images)
        pixels = np.stack([self.pixels(observation_file.parent / file) for file in frames])
        raw_state = np.array(observation["state"], f32)
        if manifest.get("adapt_to_pi"):
            raw_state = of_aloha(raw_state)
        given = np.pad(raw_state, (0, manifest["state"].get("normalized_dim", len(raw_state)) - len(raw_state)))
        state = np.zeros((1, manifest["state"]["padded_dim"]), f32)
        shown = normalized(given, manifest["state"]["normalization"])
        state[0, : len(given)] = shown
        if manifest["prompt"]["format"] == "pi05_padded_state":
            shown = state[0]
        tokens = self.tokens(observation["prompt"], shown)

        embeds = self.run("vision_encoder", pixel_values=pixels)["image_embeds"]
        prefix = np.concatenate([embeds.reshape(-1, embeds.shape[-1]), self.token_rows[tokens]])[None]
        cos, sin = self.rope(np.arange(prefix.shape[1]))
        cache = self.run("prefix_prefill", prefix_embeds=prefix, rope_cos=cos, rope_sin=sin)
        layers = range(dimensions["layers"])
        past = {f"past_key_values.{i}.{kind}": cache[f"present.{i}.{kind}"] for i in layers for kind in ("key", "value")}

        times = [1.0 + k * (-1.0 / num_steps) for k in range(num_steps)]
        if manifest["flow"].get("times") == "accumulated":
            times = np.cumsum(np.array([1.0] + [-1.0 / num_steps] * (num_steps - 1), f32), dtype=f32)
        schedule = np.array([[time, -1.0 / num_steps, 0.0] for time in times], f32)
        table = self.run("time_conditioning", time_embedding=np.stack([self.time_embedding(t) for t in schedule[:, 0]]))
        horizon = dimensions["action_horizon"]
        own = {"state": state} if manifest["policy"] == "pi0" else {}
        suffix = horizon + len(own)
        if "rtc_training_max_delay" in manifest["flow"]:
            clean = self.run("time_conditioning", time_embedding=self.time_embedding(f32(0))[None])["time_table"]
            own |= {"clean_rows": np.array([0]), "clean_time": clean}
        cos, sin = self.rope(prefix.shape[1] + np.arange(suffix))
        x_t, v_t = noise[None], []
        for step in range(num_steps):
            out = self.run(
                "denoise_step", x_t=x_t, step=np.array([step]), schedule=schedule, **table, **own,
                prev_actions=np.zeros_like(x_t), prefix_weights=np.zeros((1, horizon, 1), f32),
                rope_cos=cos, rope_sin=sin, **past,
            )  # fmt: skip
            x_t = out["x_next"]
            v_t.append(out["v_t"][0])
        return {
            "tokens": tokens,
            "pixel_values": pixels,
            "image_embeds": embeds,
            "keys": np.stack([cache[f"present.{i}.key"][0] for i in layers]),
            "values": np.stack([cache[f"present.{i}.value"][0] for i in layers]),
            "v_t": np.stack(v_t),
            "actions_normalized": x_t[0],
            "actions": self.actions(x_t[0], raw_state),
        }

    def tokens(self, prompt, state):
        tokenizer, style = Tokenizer.from_file(str(self.directory / self.manifest["prompt"]["tokenizer"])), self.manifest["prompt"]["format"]
        task = prompt.strip().replace("_", " ").replace("\n", " ")
        if style == "append_newline":
            text = prompt if prompt.endswith("\n") else prompt + "\n"
        elif style == "cleaned_newline":
            text = task + "\n"
        else:
            # The largest k from -1 to 255 with -1 + k / 128 <= x; a product with a power of two is exact.
            bins = [min(max(int(np.floor((np.float64(x) + 1) * 128)), -1), 255) for x in state]
            text = f"Task: {task}, State: {' '.join(map(str, bins))};\nAction: "
        ids, limit = tokenizer.encode(text).ids, self.manifest["prompt"]["max_tokens"]
        assert len(ids) <= limit or self.manifest["prompt"]["truncation"]
        return ids[:limit]

    def pixels(self, file):
        rule = self.manifest["image"]
        assert (rule["resize"], rule["pad_side"]) == ("bilinear", "center")
        target = self.manifest["dimensions"]["image_height"], self.manifest["dimensions"]["image_width"]
        picture = Image.open(file)
        if rule["antialias"] and picture.size != target[::-1]:
            # Bytes in, bytes out: what is left to do is to put them between bars.
            ratio = max(picture.width / target[1], picture.height / target[0])
            picture = picture.resize((int(picture.width / ratio), int(picture.height / ratio)), Image.Resampling.BILINEAR)
        image = np.array(picture).astype(f32) / f32(255)
        if rule["antialias"]:
            return self.between_bars(image, target)
        ratio = max(image.shape[1] / target[1], image.shape[0] / target[0])
        height, width = int(image.shape[0] / ratio), int(image.shape[1] / ratio)
        if image.shape[:2] != target:
            image = bilinear(bilinear(image, height, 0), width, 1).clip(0, 1)
        return self.between_bars(image, target)

    def between_bars(self, image, target):
        out = np.full((*target, 3), f32(self.manifest["image"]["pad_value"]))
        top, left = (target[0] - image.shape[0]) // 2, (target[1] - image.shape[1]) // 2
        out[top : top + image.shape[0], left : left + image.shape[1]] = image * f32(2) - f32(1)
        return out.transpose(2, 0, 1)

    def rope(self, positions):
        rule, width = self.manifest["rope"], self.manifest["dimensions"]["head_dim"]
        inverse = f32(1) / (rule["theta"] ** (np.arange(0, width, 2) / width)).astype(f32)
        if rule["inv_freq"] == "bf16":
            bits = inverse.view(np.uint32)
            inverse = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(f32)
        angles = (positions.astype(f32)[:, None] * inverse[None]).astype(np.float64)
        return np.cos(angles).astype(f32), np.sin(angles).astype(f32)

    def time_embedding(self, time):
        flow, half = self.manifest["flow"], self.manifest["dimensions"]["expert_width"] // 2
        periods = flow["min_period"] * (flow["max_period"] / flow["min_period"]) ** np.linspace(0, 1, half)
        angles = 2 * np.pi / periods * np.float64(time)
        return np.concatenate([np.sin(angles), np.cos(angles)]).astype(f32)

    def actions(self, x_t, raw_state):
        feature = self.manifest["action"]
        actions = unnormalized(x_t[:, : feature["dim"]], feature["normalization"])
        if feature["relative_mask"]:
            mask = np.array(feature["relative_mask"])
            state = np.pad(raw_state, (0, max(0, len(mask) - len(raw_state))))
            actions[:, : len(mask)] += np.where(mask, state[: len(mask)], f32(0))
        return to_aloha(actions) if self.manifest.get("adapt_to_pi") else actions


def of_aloha(state):
    """Two arms of six joints and a gripper, which is a share of its opening in metres and becomes one of its angle in radians."""
    arms = state.astype(np.float64).reshape(2, 7) * [1, -1, -1, 1, 1, 1, 1]
    metres = 0.01844 + arms[:, 6] * (0.058 - 0.01844)
    radians = np.arcsin(np.clip((metres**2 + 0.022**2 - 0.036**2) / (0.044 * metres), -1, 1))
    arms[:, 6] = (radians - 0.5476) / (1.6296 - 0.5476)
    return arms.reshape(14).astype(f32)


def to_aloha(actions):
    arms = actions.reshape(-1, 2, 7) * np.array([1, -1, -1, 1, 1, 1, 1], f32)
    arms[:, :, 6] = (arms[:, :, 6] + 1.1689) / 2.1123
    return arms.reshape(-1, 14)


def bilinear(image, size, axis):
    """Half-pixel centres, no antialiasing, edges held."""
    length = image.shape[axis]
    source = np.maximum((np.arange(size, dtype=f32) + f32(0.5)) * f32(length / size) - f32(0.5), f32(0))
    low = source.astype(np.int64)
    high, share = np.minimum(low + 1, length - 1), source - low.astype(f32)
    share = share.reshape([-1 if i == axis else 1 for i in range(3)])
    return np.take(image, low, axis) * (f32(1) - share) + np.take(image, high, axis) * share


BOUNDS = {"min_max": ("min", "max"), "quantiles": ("q01", "q99"), "quantile10": ("q10", "q90")}


def bounds(rule):
    low, high = (np.array(rule[name], f32) for name in BOUNDS[rule["mode"]])
    span = high - low
    return low, np.where(span == 0, f32(rule["eps"]), span)


def normalized(values, rule):
    if rule["mode"] == "identity":
        return values
    if rule["mode"] == "mean_std":
        return (values - np.array(rule["mean"], f32)) / (np.array(rule["std"], f32) + f32(rule["eps"]))
    if rule["mode"] == "z_score":
        return (values - np.array(rule["mean"])) / (np.array(rule["std"]) + rule["eps"])
    if rule["mode"] == "quantile_range":
        low, high = np.array(rule["q01"]), np.array(rule["q99"])
        return (values - low) / (high - low + rule["eps"]) * 2 - 1
    low, span = bounds(rule)
    return f32(2) * (values - low) / span - f32(1)


def unnormalized(values, rule):
    if rule["mode"] == "identity":
        return values.copy()
    if rule["mode"] == "mean_std":
        return values * np.array(rule["std"], f32) + np.array(rule["mean"], f32)
    if rule["mode"] == "z_score":
        return values * (np.array(rule["std"]) + rule["eps"]) + np.array(rule["mean"])
    if rule["mode"] == "quantile_range":
        low, high = np.array(rule["q01"]), np.array(rule["q99"])
        return (values + f32(1)) / f32(2) * (high - low + rule["eps"]) + low
    low, span = bounds(rule)
    return (values + f32(1)) / f32(2) * span + low
