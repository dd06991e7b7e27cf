"""Real-time chunking as a PI0.5 policy is trained for it: a clean prefix, and a time of its own for every action token.

lerobot 0.6.1 has the modules but not the sampling, which came later. Here its modules compute the network; what is added is
the sampling rule: the first rows are the previous actions before and after every step, their time is 0, and every norm of the
expert is modulated for each token by that token's time.
"""

import contextlib
from unittest import mock

import torch
from lerobot.policies.pi05 import modeling_pi05
from lerobot.policies.pi_gemma import PiGemmaRMSNorm

from .recording import batch_of, tap
from .rtc import previous_actions, write_runs


@torch.no_grad()
def write(reference, case, output, max_delay):
    """Writes trained_rtc.json with one entry a delay, from none to the longest trained; observation and noise are the case's."""
    batch = batch_of(reference, case)
    noise = torch.from_numpy(case.noise)[None]
    previous = previous_actions(reference, batch, noise, executed=reference.config.chunk_size // 3)
    delays = sorted({0, 1, max_delay // 2, max_delay})
    runs = {str(delay): joined(reference, case, batch, noise, previous, delay) for delay in delays}
    write_runs(case, previous, output, "trained_rtc.json", {}, "delays", runs, prefix="delay_")


def joined(reference, case, batch, noise, previous, delay):
    """The chunk whose first `delay` rows are those of `previous` [rows, action_dim], in the model's space."""
    policy, model = reference.policy, reference.policy.model
    held = torch.zeros(noise.shape[1:])
    held[: len(previous), : previous.shape[1]] = previous
    clean = torch.arange(noise.shape[1])[:, None] < delay

    def integrate(denoise, x_t, num_steps, **_):
        for step in range(num_steps):
            x_t = torch.where(clean, held, x_t)
            time = torch.tensor(1.0 + step * (-1.0 / num_steps), dtype=torch.float32).expand(len(x_t))
            x_t = torch.where(clean, held, x_t + (-1.0 / num_steps) * denoise(x_t, time))
        return x_t

    steps, samples = [], []
    with (
        mock.patch.object(modeling_pi05, "euler_integrate", integrate),
        per_token_times(model, clean),
        tap(model, "denoise_step", steps, lambda args, result: result[0].clone()),
        tap(model, "sample_actions", samples, lambda args, result: result[0].clone()),
    ):
        chunk = policy.predict_action_chunk(batch, noise=noise, num_steps=case.num_steps)
    return {
        "v_t": torch.stack(steps).numpy(),
        "actions_normalized": samples[0].numpy(),
        "actions": reference.postprocessor(chunk)[0].numpy(),
    }


@contextlib.contextmanager
def per_token_times(model, clean):
    """While this is active, rows for which `clean` [rows, 1] is true have the time 0, the others the step's."""
    embed, norm = model.embed_suffix, PiGemmaRMSNorm.forward

    def embed_suffix(x_t, timestep):
        *suffix, now = embed(x_t, timestep)
        at_zero = embed(x_t, torch.zeros_like(timestep))[-1]
        return *suffix, torch.where(clean, at_zero[:, None], now[:, None])

    def forward(self, x, cond=None):
        if cond is None or cond.dim() == 2:
            return norm(self, x, cond)
        # As the module itself, but for a modulation that has the tokens' dimension already.
        scale, shift, gate = self.dense(cond).chunk(3, dim=-1)
        return (self._norm(x) * (1 + scale.float()) + shift.float()).to(x.dtype), gate.to(x.dtype)

    with mock.patch.object(model, "embed_suffix", embed_suffix), mock.patch.object(PiGemmaRMSNorm, "forward", forward):
        yield
