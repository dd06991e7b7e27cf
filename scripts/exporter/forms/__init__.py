"""How the operators of a graph are written for what is to run them: see ``portable``, ``fused``."""

from .fused import Fused
from .portable import Portable

FORMS = {"cpu": Portable, "cuda": Fused}


def choose_forms(target: str) -> Portable:
    return FORMS[target]()
