"""Process-wide settings. Import this before torch, transformers or lerobot."""

import logging
import os

os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    DISABLE_TELEMETRY="1",
    DO_NOT_TRACK="1",
    TOKENIZERS_PARALLELISM="false",
)
# The reference is the CPU, and the CUDA libraries of the environment are stubs unless reference_env.sh --gpu made it.
USE_GPU = os.environ.get("PI0_REFERENCE_GPU") == "1"
if not USE_GPU:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def prepare(threads=None):
    """Plain float32 arithmetic: lerobot's own scripts turn TF32 on, golden values must not depend on it."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    torch.use_deterministic_algorithms(True)
    if threads:
        torch.set_num_threads(threads)
    # transformers and lerobot warn about training features that are not installed.
    logging.getLogger().setLevel(logging.ERROR)
    logging.getLogger("transformers").setLevel(logging.ERROR)


def versions():
    from importlib.metadata import version

    return {name: version(name).partition("+")[0] for name in ("lerobot", "transformers", "torch")}
