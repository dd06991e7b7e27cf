"""The four graphs of a bundle, one module each."""

from ..model import EXPERT, PREFIX, PROJECTOR, VISION
from . import denoise, prefix, time_conditioning, vision

# Name, what of the model is in it, and what builds it.
GRAPHS = (
    ("vision_encoder", lambda name: name.startswith((VISION, PROJECTOR)), vision.build),
    ("prefix_prefill", lambda name: name.startswith(PREFIX), prefix.build),
    ("time_conditioning", lambda name: "time_mlp_in." in name or ".dense." in name, time_conditioning.build),
    ("denoise_step", lambda name: name.startswith(EXPERT) and ".dense." not in name, denoise.build),
)
