"""Runs lerobot on one observation and keeps what every stage gave."""

import contextlib
import dataclasses
from unittest import mock

import numpy as np
import torch
from lerobot.policies.utils import prepare_observation_for_inference
from lerobot.utils.constants import OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS


class DisagreementError(Exception):
    """lerobot's stages and its end-to-end call do not give the same numbers."""


@dataclasses.dataclass
class Recording:
    tokens: list  # ids of the valid prompt tokens
    pixel_values: np.ndarray  # [views, 3, height, width]
    image_embeds: np.ndarray  # [views, tokens per view, prefix width]
    keys: np.ndarray  # [layers, valid prefix rows, head_dim]
    values: np.ndarray
    v_t: np.ndarray  # [num_steps, action_horizon, max_action_dim]
    actions_normalized: np.ndarray  # [action_horizon, max_action_dim]
    actions: np.ndarray  # [action_horizon, action_dim]


# Times that record() has the policy run: with the stages tapped, undisturbed, and without the masked rows.
RUNS = 3

# lerobot's masked rows and ours, which leave them out, differ by the order of additions only.
COMPACTION_LIMIT = 1e-5


def batch_of(reference, case):
    """The observation as lerobot's own robot loop hands it to the policy."""
    observation = {key: np.ascontiguousarray(pixels) for key, pixels in case.images.items()}
    observation[reference.renamed.get("observation.state", "observation.state")] = case.state.copy()
    raw = prepare_observation_for_inference(observation, torch.device("cpu"), task=case.prompt)
    return reference.preprocessor(raw)


@torch.no_grad()
def record(reference, case):
    policy, model = reference.policy, reference.policy.model
    batch = batch_of(reference, case)
    noise = torch.from_numpy(case.noise)[None]

    images, embeds, prefixes, steps, samples = [], [], [], [], []
    with (
        tap(policy, "_preprocess_images", images, lambda args, result: [image[0] for image in result[0]]),
        tap(model.paligemma_with_expert, "embed_image", embeds, lambda args, result: result[0]),
        tap(model.paligemma_with_expert, "forward", prefixes, prefix_cache),
        tap(model, "denoise_step", steps, lambda args, result: (args, result[0].clone())),
        tap(model, "sample_actions", samples, lambda args, result: result[0].clone()),
    ):
        chunk = policy.predict_action_chunk(batch, noise=noise, num_steps=case.num_steps)
    actions = reference.postprocessor(chunk.clone())

    views = len(case.images)
    valid = steps[0][0]["prefix_pad_masks"][0]
    mask = batch[OBS_LANGUAGE_ATTENTION_MASK][0]
    keys, values = next(cache for cache in prefixes if cache is not None)
    recording = Recording(
        tokens=batch[OBS_LANGUAGE_TOKENS][0][mask].tolist(),
        pixel_values=torch.stack(images[0][:views]).numpy(),
        image_embeds=torch.stack(embeds[:views]).numpy(),
        keys=torch.stack(keys)[:, valid].numpy(),
        values=torch.stack(values)[:, valid].numpy(),
        v_t=torch.stack([v_t for _, v_t in steps]).numpy(),
        actions_normalized=samples[0].numpy(),
        actions=actions[0].numpy(),
    )
    for name, value in vars(recording).items():
        if not np.isfinite(value).all():
            raise DisagreementError(f"{case.name}: lerobot's {name} is not finite")
    _check_steps(case, recording, [args["x_t"][0] for args, _ in steps], chunk[0])
    _check_again(reference, case, recording, batch, noise)
    return recording


@contextlib.contextmanager
def tap(owner, name, kept, keep):
    """Lets every call of `owner.name` through and appends what `keep(arguments, result)` returns."""
    call = getattr(owner, name)

    def passing(*positional, **named):
        result = call(*positional, **named)
        kept.append(keep(named, result))
        return result

    with mock.patch.object(owner, name, passing):
        yield


def prefix_cache(arguments, result):
    """Keys and values of each layer, [rows, head_dim], if this was the prefix's pass."""
    if arguments["inputs_embeds"][1] is not None:
        return None
    layers = [(keys[0, 0].clone(), values[0, 0].clone()) for keys, values, _ in result[1]]
    return [keys for keys, _ in layers], [values for _, values in layers]


def _check_steps(case, recording, inputs, chunk):
    """The recorded velocities, integrated here, are the chunk that lerobot returned."""
    x_t = torch.from_numpy(case.noise)
    for given, v_t in zip(inputs, torch.from_numpy(recording.v_t), strict=True):
        _equal(case, "x_t", x_t, given)
        x_t = x_t + (-1.0 / case.num_steps) * v_t
    _equal(case, "the last x_t", x_t, torch.from_numpy(recording.actions_normalized))
    _equal(case, "the chunk", x_t[:, : chunk.shape[1]], chunk)


def _check_again(reference, case, recording, batch, noise):
    """Undisturbed, lerobot gives the same bits; without the masked rows, the same numbers."""
    policy, model = reference.policy, reference.policy.model
    images, masks = policy._preprocess_images(batch)
    tokens, mask = batch[OBS_LANGUAGE_TOKENS], batch[OBS_LANGUAGE_ATTENTION_MASK]
    # PI0.5 has the state among its tokens.
    state = [policy.prepare_state(batch)] if hasattr(policy, "prepare_state") else []
    again = model.sample_actions(images, masks, tokens, mask, *state, noise=noise, num_steps=case.num_steps)
    want = torch.from_numpy(recording.actions_normalized)
    _equal(case, "a second run", again[0], want)

    views, valid = len(case.images), int(mask.sum())
    compact = model.sample_actions(
        images[:views], masks[:views], tokens[:, :valid], mask[:, :valid], *state, noise=noise, num_steps=case.num_steps
    )
    error = ((compact[0] - want).abs().max() / want.abs().max()).item()
    if error > COMPACTION_LIMIT:
        raise DisagreementError(f"{case.name}: leaving out masked prefix rows changes the chunk by {error:.1e}")


def _equal(case, what, got, want):
    if not torch.equal(got, want):
        raise DisagreementError(f"{case.name}: {what} differs by {(got - want).abs().max().item():.1e}")
