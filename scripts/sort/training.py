"""The training itself: lerobot's policy and loss on demonstrations held ready, Muon and AdamW, checkpoints to resume from."""

import hashlib
import time

import numpy as np
import torch
from lerobot.utils.constants import ACTION, OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS, OBS_STATE
from safetensors.torch import load, save_file

from demonstrations import DemonstrationError, statistics
from muon import Muon
from reference import environment
from reference.loading import Reference

CAMERAS = {"observation.images.base": "base", "observation.images.wrist": "wrist"}
# What a batch holds besides images, and does not change over a training.
READY = (OBS_STATE, ACTION, OBS_LANGUAGE_TOKENS, OBS_LANGUAGE_ATTENTION_MASK)
WARM_UP = 100


class Training:
    """A checkpoint directory while it is being trained; ``step`` counts the batches it has seen."""

    def __init__(self, directory, demonstrations, recipe):
        self.directory, self.demonstrations, self.recipe = directory, demonstrations, recipe
        torch.manual_seed(recipe["seed"])
        write_statistics(directory, demonstrations)
        self.reference = Reference(directory)
        self.policy = self.reference.policy.train()
        self.ready = ready(self.reference, demonstrations)
        blocks = torch.from_numpy(np.array(demonstrations.blocks))
        self.blocks = (blocks - blocks.mean(0)) / blocks.std(0)

        hidden, others = [], []
        for name, parameter in self.policy.named_parameters():
            if parameter.numel():
                # The checkpoint's file is mapped read-only.
                parameter.data = parameter.data.clone()
                parameter.requires_grad_(True)
                (hidden if ".layers." in name and name.endswith(".weight") and parameter.ndim == 2 and "norm" not in name else others).append(parameter)
        self.tokens = []
        projector = self.policy.model.paligemma_with_expert.paligemma.model.multi_modal_projector
        projector.register_forward_hook(lambda module, args, result: self.tokens.append(result))
        # Where the blocks are, read off the image tokens: this teaches the vision tower to look, and is thrown away.
        tokens = len(CAMERAS) * self.reference.dimensions.image_tokens
        self.head = torch.nn.Linear(tokens * self.reference.dimensions.vision.projection_dim, blocks.shape[1])
        self.optimizers = [Muon(hidden, recipe["muon"]), torch.optim.AdamW([*others, *self.head.parameters()], recipe["adamw"], betas=(0.9, 0.95), weight_decay=0.0)]
        self.schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, self.rate) for optimizer in self.optimizers]
        self.step, self.curve, self.seconds = 0, [], 0.0
        self.parameters = sum(parameter.numel() for parameter in hidden + others)

    def rate(self, step):
        """Fraction of the learning rates at a step: a linear rise, and a linear decay to zero."""
        return min((step + 1) / WARM_UP, 1 - step / self.recipe["steps"])

    def advance(self):
        """Trains on the next batch."""
        started = time.monotonic()
        rows = self.rows()
        self.tokens.clear()
        loss, _ = self.policy.forward(self.batch(rows))
        seen = torch.cat(self.tokens, 1).flatten(1)
        positions = torch.nn.functional.mse_loss(self.head(seen), self.blocks[rows])
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        (loss + self.recipe["positions"] * positions).backward()
        for worker in (*self.optimizers, *self.schedules):
            worker.step()
        self.step += 1
        self.seconds += time.monotonic() - started
        self.curve.append((self.step, loss.item(), positions.item()))

    def rows(self):
        """The batch of this step: each epoch is a permutation of its own, so that a resumed training sees what it would have."""
        frames, batch = self.demonstrations.frames, self.recipe["batch"]
        epoch, place = divmod(self.step, frames // batch)
        order = np.random.default_rng([self.recipe["seed"], epoch]).permutation(frames)
        return np.sort(order[place * batch : (place + 1) * batch])

    def batch(self, rows):
        batch = {key: values[rows] for key, values in self.ready.items()}
        for key, name in CAMERAS.items():
            frames = torch.from_numpy(getattr(self.demonstrations, name)[rows])
            batch[key] = frames.permute(0, 3, 1, 2).float() / 255
        return batch

    def report(self, steps):
        """(step, loss, error of the positions), both over the last steps."""
        return self.step, *np.mean([losses for _, *losses in self.curve[-steps:]], axis=0)

    def keep(self, path):
        """Writes what ``resume`` goes on from, whole or not at all."""
        kept = {
            "recipe": self.recipe, "step": self.step, "curve": self.curve, "seconds": self.seconds, "random": torch.get_rng_state(),
            "workers": [worker.state_dict() for worker in self.workers()],
        }  # fmt: skip
        torch.save(kept, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def resume(self, path):
        if not path.exists():
            return
        kept = torch.load(path, weights_only=True)
        if kept["recipe"] != self.recipe:
            raise DemonstrationError(f"{path} was trained by another recipe, {kept['recipe']}: delete it to start anew")
        self.step, self.curve, self.seconds = kept["step"], kept["curve"], kept["seconds"]
        torch.set_rng_state(kept["random"])
        for worker, state in zip(self.workers(), kept["workers"]):
            worker.load_state_dict(state)

    def workers(self):
        return (self.policy, self.head, *self.optimizers, *self.schedules)

    def finish(self):
        """Writes the weights into the checkpoint; returns the training's record."""
        path = self.directory / "model.safetensors"
        trained = dict(self.policy.named_parameters())
        weights = {name: trained[name].detach().contiguous() for name in load(path.read_bytes()) if name in trained and trained[name].numel()}
        save_file(weights, path, metadata={"format": "pt"})
        curve = [(step, *(float(f"{value:.4g}") for value in losses)) for step, *losses in self.averaged(40)]
        return {
            "policy": self.reference.config.type,
            "parameters": self.parameters,
            "recipe": self.recipe,
            "demonstrations": {"frames": self.demonstrations.frames, "chunk_sha256": digest(self.demonstrations.chunk)},
            "versions": environment.versions(),
            "seconds": round(self.seconds),
            "curve": {"columns": ["step", "loss", "positions"], "rows": curve},
            "model_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }

    def averaged(self, steps):
        """(step, losses) of every window of so many steps, the last one as long as it is."""
        for start in range(0, len(self.curve), steps):
            window = self.curve[start : start + steps]
            yield window[-1][0], *np.mean([losses for _, *losses in window], axis=0)


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()


def write_statistics(directory, demonstrations):
    """Puts the demonstrations' statistics into both processor pipelines, those of the actions relative to the state where the policy's are."""
    config = Reference(directory).config
    actions = np.array(demonstrations.chunk)
    if config.use_relative_actions:
        for i, name in enumerate(config.action_feature_names):
            if not any(part in name for part in config.relative_exclude_joints):
                actions[:, :, i] -= demonstrations.state[:, None, i]
    found = {OBS_STATE: statistics(demonstrations.state), ACTION: statistics(actions.reshape(-1, actions.shape[-1]))}
    written = {f"{key}.{name}": torch.from_numpy(value) for key, values in found.items() for name, value in values.items()}
    for path in directory.glob("*normalizer_processor.safetensors"):
        # Not load_file, which maps the file that is about to be written.
        save_file(load(path.read_bytes()) | written, path)


def ready(reference, demonstrations, piece=4096):
    """All that lerobot's preprocessor makes of the demonstrations but images, which it leaves as they are: {key: tensor}."""
    pieces = []
    for start in range(0, demonstrations.frames, piece):
        rows = np.arange(start, min(start + piece, demonstrations.frames))
        state, chunk = (torch.from_numpy(values[rows]) for values in (demonstrations.state, demonstrations.chunk))
        made = reference.preprocessor({OBS_STATE: state, ACTION: chunk, "task": demonstrations.tasks(rows)})
        pieces.append({key: made[key] for key in READY})
    return {key: torch.cat([made[key] for made in pieces]) for key in READY}
