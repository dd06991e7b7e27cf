"""The sizes that a bundle's named dimensions can have."""

from __future__ import annotations

MAX_STEPS = 64


def dimensions_of(manifest: dict, static: bool) -> dict[str, tuple[int, int, int]]:
    """Least, usual and most of every named dimension; ``static``: the most alone. The usual is the most, as the runtime's engines have
    it: what a control loop is planned for."""
    d, cameras = manifest["dimensions"], len(manifest["cameras"])
    state = int(manifest.get("state_in_prefill", False))
    bucket = manifest.get("prefix_bucket", 1)
    shortest, longest = (
        -(-rows // bucket) * bucket for rows in (d["tokens_per_view"] + 1, cameras * d["tokens_per_view"] + manifest["prompt"]["max_tokens"])
    )
    ranges = {"views": (1, cameras), "prefix": (shortest, longest), "cache": (state + shortest, state + longest), "steps": (1, MAX_STEPS)}
    return {name: (most if static else least, most, most) for name, (least, most) in ranges.items()}
