"""How the operators of a graph are written for what is to run them: see ``portable``, ``fused``, ``tensorrt``."""

from .fused import Fused
from .portable import Portable
from .tensorrt import AttentionTensorRt, TensorRt

TARGETS = ("cpu", "cuda", "tensorrt")
TENSORRT = {forms.version: forms for forms in (TensorRt, AttentionTensorRt)}


def choose_forms(target: str, tensorrt_version: str) -> Portable:
    """The forms of a target; ``tensorrt_version``, of those in ``TENSORRT``, is for that target."""
    return {"cpu": Portable, "cuda": Fused, "tensorrt": TENSORRT[tensorrt_version]}[target]()
