"""The tokens of a prompt, as the runtime makes them; by the package ``tokenizers``, which nothing else here needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .errors import ExportError

BINS = 256


def tokens(task: str, state: np.ndarray, manifest: dict, tokenizer: Path) -> list[int]:
    """The ids of a task's prompt. ``state``: as the model takes it, padded."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise ExportError("--calibrate: needs the Python package tokenizers; .venv/bin/pip install tokenizers==0.22.2") from None
    rule, text = manifest["prompt"], task
    if rule["format"] == "append_newline":
        text = task if task.endswith("\n") else task + "\n"
    else:
        text = task.strip().replace("_", " ").replace("\n", " ")
        if rule["format"] == "cleaned_newline":
            text += "\n"
        else:
            feature = manifest["state"]
            shown = feature["padded_dim"] if rule["format"] == "pi05_padded_state" else feature.get("normalized_dim", feature["dim"])
            bins = np.searchsorted(np.arange(BINS) / (BINS / 2) - 1, state[:shown], side="right") - 1
            text = f"Task: {text}, State: {' '.join(map(str, bins))};\nAction: "
    encoder = Tokenizer.from_file(str(tokenizer))
    encoder.no_padding()
    encoder.no_truncation()
    ids = encoder.encode(text).ids
    if len(ids) > rule["max_tokens"] and not rule.get("truncation"):
        raise ExportError(f"the prompt {task[:60]!r} has {len(ids)} tokens; the policy takes {rule['max_tokens']}")
    return ids[: rule["max_tokens"]]
