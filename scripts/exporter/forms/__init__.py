"""How the operators of a graph are written for what is to run them: see ``portable``, ``fused``, ``tensorrt``."""

from .fused import Fused, OlderFused
from .portable import Portable
from .tensorrt import AttentionTensorRt, TensorRt

TARGETS = ("cpu", "cuda", "tensorrt")
CUDA = {forms.onnxruntime: forms for forms in (OlderFused, Fused)}
TENSORRT = {forms.version: forms for forms in (TensorRt, AttentionTensorRt)}


def choose_forms(target: str, onnxruntime_version: str, tensorrt_version: str) -> Portable:
    """The forms of a target; the versions, of those in ``CUDA`` and ``TENSORRT``, are for one target each."""
    return {"cpu": Portable, "cuda": CUDA[onnxruntime_version], "tensorrt": TENSORRT[tensorrt_version]}[target]()
