"""lerobot's own code, one stage of a chunk at a time, for measuring.

Only the parameters a stage needs are loaded, and float32 ones stay memory-mapped, so that
the released model can be measured on a machine that could not hold it twice.
"""

import json
import pathlib
from unittest import mock

import torch
from lerobot.configs import PreTrainedConfig
from safetensors import safe_open
from transformers import DynamicCache

from . import loading

BOTH = "model.paligemma_with_expert."
NEEDED = {
    "vision": (BOTH + "paligemma.model.vision_tower.", BOTH + "paligemma.model.multi_modal_projector."),
    "prefix": (BOTH + "paligemma.model.language_model.",),
    "denoise_step": (BOTH + "gemma_expert.model.", "model.state_proj.", "model.action_", "model.time_mlp_"),
    "chunk": ("model.",),
}


class Stages:
    """Builds callables that run one stage once, on inputs of the right shapes."""

    def __init__(
        self, checkpoint, views, prompt_tokens, vision_heads=loading.VISION_HEADS, device="cpu", compile_mode=None, random=False
    ):
        self.checkpoint = pathlib.Path(checkpoint)
        self.views, self.prompt_tokens, self.vision_heads = views, prompt_tokens, vision_heads
        self.device, self.compile_mode, self.random = device, compile_mode, random

    def build(self, stage, dtype):
        config = PreTrainedConfig.from_pretrained(self.checkpoint)
        config.compile_model, config.rtc_config = False, None
        policy, found = loading.load_policy(
            self.checkpoint, config, self.vision_heads, dtype, wanted=lambda key: key.startswith(NEEDED[stage]),
            random_on=self.device if self.random else None,
        )
        if self.device != "cpu":
            _move(policy, self.device)
        # Inputs are made where the policy is.
        with torch.device(self.device):
            return getattr(self, stage)(policy.model, config, found)

    def chunk(self, model, config, found):
        """A whole chunk: `run(compile=True)` as lerobot compiles it, which the first call does."""
        images = list(torch.rand(self.views, 1, 3, *config.image_resolution) * 2 - 1)
        (_, masks, *tokens), _ = self._prefix_inputs(config, found)
        state = [torch.randn(1, config.max_state_dim)] if config.type == "pi0" else []
        compiled = torch.compile(model.sample_actions, mode=self.compile_mode or config.compile_mode)

        def run(compile=False):
            sample = compiled if compile else model.sample_actions
            return sample(images, masks, *tokens, *state, num_steps=config.num_inference_steps)

        return run

    def rows_of_prefix(self):
        path = self.checkpoint / ("shapes.json" if self.random else "model.safetensors")
        if self.random:
            shapes = json.loads(path.read_text())
        else:
            with safe_open(path, framework="pt") as file:
                shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}
        patches = next(shape[0] for key, shape in shapes.items() if key.endswith("position_embedding.weight"))
        return self.views * patches + self.prompt_tokens

    def vision(self, model, config, found):
        images = torch.rand(self.views, 1, 3, *config.image_resolution) * 2 - 1

        def run():
            # One call a view, as embed_prefix has it.
            return [model.paligemma_with_expert.embed_image(image) for image in images]

        return run

    def prefix(self, model, config, found):
        """Everything between the vision encoder and the first denoise step."""
        arguments, embeds = self._prefix_inputs(config, found)
        state = [torch.randn(1, config.max_state_dim)] if config.type == "pi0" else []

        def no_step(x_t, **_):
            return torch.zeros_like(x_t)

        def run():
            with (
                mock.patch.object(model.paligemma_with_expert, "embed_image", _next_of(embeds)),
                mock.patch.object(model, "denoise_step", no_step),
            ):
                return model.sample_actions(*arguments, *state, num_steps=1)

        return run

    def denoise_step(self, model, config, found):
        rows, expert = self.rows_of_prefix(), found.expert
        dtype = next(model.paligemma_with_expert.gemma_expert.model.layers[0].self_attn.parameters()).dtype
        shape = (1, expert.num_kv_heads, rows, expert.head_dim)
        layers = [(torch.randn(shape).to(dtype), torch.randn(shape).to(dtype), None) for _ in range(expert.depth)]
        inputs = {
            "prefix_pad_masks": torch.ones(1, rows, dtype=torch.bool),
            "past_key_values": DynamicCache(tuple(layers)),
            "x_t": torch.randn(1, config.chunk_size, config.max_action_dim),
            "timestep": torch.tensor([0.5]),
        }
        if config.type == "pi0":
            inputs["state"] = torch.randn(1, config.max_state_dim)
        return lambda: model.denoise_step(**inputs)

    def prefix_assembly(self, views):
        """lerobot's embed_prefix on ready image embeddings, and its token table, ids and image embeddings."""
        config = PreTrainedConfig.from_pretrained(self.checkpoint)
        config.compile_model, config.rtc_config = False, None
        table = BOTH + "paligemma.model.language_model.embed_tokens."
        policy, found = loading.load_policy(
            self.checkpoint, config, self.vision_heads, wanted=lambda key: key.startswith(table)
        )
        model = policy.model
        few = Stages(self.checkpoint, views, self.prompt_tokens, self.vision_heads)
        arguments, embeds = few._prefix_inputs(config, found)

        def run():
            with mock.patch.object(model.paligemma_with_expert, "embed_image", _next_of(embeds)):
                return model.embed_prefix(*arguments)[0]

        weight = model.paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight
        return run, weight, arguments[2][0], embeds

    def _prefix_inputs(self, config, found):
        images = [torch.zeros(1, 3, 1, 1)] * self.views
        masks = [torch.ones(1, dtype=torch.bool)] * self.views
        tokens = torch.randint(3, min(found.vocabulary, 4096), (1, self.prompt_tokens))
        token_mask = torch.ones(1, self.prompt_tokens, dtype=torch.bool)
        width = found.language.width
        embeds = [torch.randn(1, found.image_tokens, width) for _ in range(self.views)]
        return (images, masks, tokens, token_mask), embeds


def _move(policy, device):
    """Moves what has memory; lerobot's own move would stumble over the parameters a stage does without."""
    for values in (*policy.parameters(), *policy.buffers()):
        if values.device.type != "meta":
            values.data = values.data.to(device)


def _next_of(embeds):
    """Stands in for embed_image: gives the ready embeddings in turn."""
    waiting = iter(embeds)
    return lambda image: next(waiting)
