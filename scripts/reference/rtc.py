"""Real-time chunking as lerobot guides it: the same chunk under every schedule.

Not part of a bundle's golden data (format version 1 has no place for it), but of the
runtime's own tests: v_t before and after guidance, the weights over the chunk's rows, and
the guidance weight of each step.
"""

import json

import numpy as np
import torch
from lerobot.configs import RTCAttentionSchedule
from lerobot.policies.rtc.configuration_rtc import RTCConfig

from exporter.directory import appearing

from . import environment, observations
from .recording import batch_of, tap

FORMAT_VERSION = 1


@torch.no_grad()
def write(reference, case, output):
    """Writes rtc.json with one entry a schedule; the observation and noise are the case's."""
    horizon = reference.config.chunk_size
    # A delay, and guidance that ends before the chunk does, so that all three parts of a
    # schedule (ones, slope, zeros) have rows, as far as the chunk is long enough.
    delay, end = max(1, horizon // 5), max(1, horizon * 3 // 5)
    batch = batch_of(reference, case)
    noise = torch.from_numpy(case.noise)[None]
    previous = previous_actions(reference, batch, noise, executed=horizon // 3)

    settings = {"inference_delay": delay, "execution_horizon": end, "max_guidance_weight": RTCConfig().max_guidance_weight}
    runs = {
        schedule.name.lower(): guided(reference, case, batch, noise, previous, schedule, delay, end)
        for schedule in RTCAttentionSchedule
    }
    write_runs(case, previous, output, "rtc.json", settings, "schedules", runs)


def write_runs(case, previous, output, name, settings, kind, runs, prefix=""):
    """Writes the case, the actions before, and the arrays of every run; the file ``name`` says under ``kind`` where each is."""
    with appearing(output, force=True) as directory:
        observations.write(case, directory)
        np.save(directory / "prev_actions.npy", previous.numpy())
        described = {
            "format_version": FORMAT_VERSION,
            "reference": {**environment.versions(), "dtype": "float32"},
            "observation": "observation.json",
            "noise": "noise.npy",
            "prev_actions": "prev_actions.npy",
            "num_steps": case.num_steps,
            **settings,
            kind: {},
        }
        for run, arrays in runs.items():
            files = {array: f"{prefix}{run}_{array}.npy" for array in arrays}
            for array, values in arrays.items():
                np.save(directory / files[array], np.ascontiguousarray(values, "<f4"))
            described[kind][run] = files
        text = json.dumps(described, indent=1)
        (directory / name).write_text(text + "\n", encoding="utf-8")


def previous_actions(reference, batch, noise, executed):
    """What an earlier chunk, from other noise, has left: rows in the model's space, not padded to its width."""
    earlier = reference.policy.predict_action_chunk(batch, noise=-noise)
    return earlier[0, executed:].clone()


def guided(reference, case, batch, noise, previous, schedule, delay, end):
    policy, model = reference.policy, reference.policy.model
    plain, kept, tracked = [], [], []
    policy.config.rtc_config = RTCConfig(prefix_attention_schedule=schedule, execution_horizon=end)
    policy.init_rtc_processor()
    try:
        with (
            tap(model, "denoise_step", plain, lambda arguments, result: result[0].clone()),
            tap(policy.rtc_processor, "denoise_step", kept, lambda arguments, result: result[0].clone()),
            tap(policy.rtc_processor, "track", tracked, lambda arguments, result: arguments),
            tap(model, "sample_actions", samples := [], lambda arguments, result: result[0].clone()),
        ):
            chunk = policy.predict_action_chunk(
                batch, noise=noise, num_steps=case.num_steps,
                inference_delay=delay, prev_chunk_left_over=previous, execution_horizon=end,
            )  # fmt: skip
    finally:
        policy.config.rtc_config = policy.rtc_processor = model.rtc_processor = None
    return {
        "prefix_weights": tracked[0]["weights"].reshape(-1).numpy(),
        "guidance": np.array([float(step["guidance_weight"]) for step in tracked]),
        "v_t": torch.stack(plain).numpy(),
        "v_t_guided": torch.stack(kept).numpy(),
        "actions_normalized": samples[0].numpy(),
        "actions": reference.postprocessor(chunk)[0].numpy(),
    }
