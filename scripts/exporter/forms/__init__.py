"""How the operators of a graph are written for what is to run them: see ``portable``, ``fused``, ``tensorrt``."""

from .fused import Fused
from .portable import Portable
from .tensorrt import TensorRt

FORMS = {"cpu": Portable, "cuda": Fused, "tensorrt": TensorRt}


def choose_forms(target: str) -> Portable:
    return FORMS[target]()
