"""Every dimension of a PI0 or PI0.5 checkpoint, read from its tensors' shapes, and lerobot made to follow them.

lerobot knows two sizes of Gemma by name and writes the vocabulary, SigLIP's MLP and the
projector's width as constants in the constructor. `following` replaces those numbers while
a model is built; the code that computes is left alone.
"""

import contextlib
import dataclasses
import importlib
import re
from unittest import mock


class CheckpointError(Exception):
    """The checkpoint cannot be run; the message names the file and key."""


@dataclasses.dataclass(frozen=True)
class Gemma:
    width: int
    depth: int
    mlp_dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int


@dataclasses.dataclass(frozen=True)
class Vision:
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    patch_size: int
    projection_dim: int


@dataclasses.dataclass(frozen=True)
class Dimensions:
    language: Gemma
    expert: Gemma
    vision: Vision
    vocabulary: int
    expert_vocabulary: int
    image_tokens: int


LANGUAGE = "paligemma_with_expert.paligemma.model.language_model."
TOWER = "paligemma_with_expert.paligemma.model.vision_tower.vision_model."
PROJECTOR = "paligemma_with_expert.paligemma.model.multi_modal_projector.linear."
EXPERT = "paligemma_with_expert.gemma_expert.model."
VOCABULARY_NAMES = (LANGUAGE + "embed_tokens.weight", "paligemma_with_expert.paligemma.lm_head.weight")
EXPERT_VOCABULARY = "paligemma_with_expert.gemma_expert.lm_head.weight"


def read(shapes, vision_heads):
    """`shapes`: {key without a leading "model.": shape}."""

    def shape(key):
        if key not in shapes:
            raise CheckpointError(f"model.safetensors has no tensor '{key}'")
        return shapes[key]

    vocabulary = next((key for key in VOCABULARY_NAMES if key in shapes), None)
    if vocabulary is None:
        raise CheckpointError(f"model.safetensors has no vocabulary matrix (neither {' nor '.join(VOCABULARY_NAMES)})")
    patches, vision_width = shape(TOWER + "embeddings.position_embedding.weight")
    if vision_width % vision_heads:
        raise CheckpointError(f"vision width {vision_width} is not a multiple of {vision_heads} heads: give --vision-heads")
    return Dimensions(
        language=_gemma(shape, shapes, LANGUAGE),
        expert=_gemma(shape, shapes, EXPERT),
        vision=Vision(
            hidden_size=vision_width,
            intermediate_size=shape(TOWER + "encoder.layers.0.mlp.fc1.weight")[0],
            num_hidden_layers=_layers(shapes, TOWER + "encoder.layers."),
            num_attention_heads=vision_heads,
            patch_size=shape(TOWER + "embeddings.patch_embedding.weight")[2],
            projection_dim=shape(PROJECTOR + "weight")[0],
        ),
        vocabulary=shape(vocabulary)[0],
        expert_vocabulary=shapes.get(EXPERT_VOCABULARY, shape(vocabulary))[0],
        image_tokens=patches,
    )


def _gemma(shape, shapes, root):
    # One key/value head: true of every Gemma that lerobot's PI0 can be built from, and the
    # shapes alone could not tell two heads of half the size apart.
    query, width = shape(root + "layers.0.self_attn.q_proj.weight")
    head_dim = shape(root + "layers.0.self_attn.k_proj.weight")[0]
    return Gemma(
        width=width,
        depth=_layers(shapes, root + "layers."),
        mlp_dim=shape(root + "layers.0.mlp.gate_proj.weight")[0],
        num_heads=query // head_dim,
        num_kv_heads=1,
        head_dim=head_dim,
    )


def _layers(shapes, root):
    found = re.compile(re.escape(root) + r"(\d+)\.")
    return 1 + max(int(match[1]) for match in map(found.match, shapes) if match)


@contextlib.contextmanager
def following(dimensions, policy="pi0"):
    """While this is active, lerobot builds models of the given policy in the given dimensions."""
    modeling = importlib.import_module(f"lerobot.policies.{policy}.modeling_{policy}")
    paligemma, gemma = modeling.PaliGemmaForConditionalGenerationWithPiGemma, modeling.PiGemmaForCausalLM

    def build_paligemma(config):
        for name, value in dataclasses.asdict(dimensions.vision).items():
            setattr(config.vision_config, name, value)
        config.text_config.vocab_size = dimensions.vocabulary
        return paligemma(config=config)

    def build_expert(config):
        config.vocab_size = dimensions.expert_vocabulary
        return gemma(config=config)

    variants = {"gemma_2b": dimensions.language, "gemma_300m": dimensions.expert}
    with (
        mock.patch.object(modeling, "get_gemma_config", variants.__getitem__),
        mock.patch.object(modeling, "PaliGemmaForConditionalGenerationWithPiGemma", build_paligemma),
        mock.patch.object(modeling, "PiGemmaForCausalLM", build_expert),
    ):
        yield
