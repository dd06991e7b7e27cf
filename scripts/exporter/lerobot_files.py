"""What lerobot looks for where ``--policy.path`` points: a bundle has it, and runs as a policy of lerobot.

The runtime reads none of it, so these files are not in the manifest and may be edited.
"""

from __future__ import annotations

import json
from pathlib import Path

IMAGES = "observation.images."


def write_lerobot_files(bundle: Path) -> None:
    """Writes config.json and both processors' files into a bundle, from its manifest."""
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    size, action = manifest["dimensions"], manifest["action"]
    names = [name if name.startswith(IMAGES) else IMAGES + name for name in (camera["name"] for camera in manifest["cameras"])]
    images = {name: {"type": "VISUAL", "shape": [3, size["image_height"], size["image_width"]]} for name in names}
    config = {
        "type": "pi0_edge",
        "input_features": {**images, "observation.state": {"type": "STATE", "shape": [manifest["state"]["dim"]]}},
        "output_features": {"action": {"type": "ACTION", "shape": [action["dim"]]}},
        "device": "cpu",
        "chunk_size": size["action_horizon"],
        "n_action_steps": size["action_horizon"],
        "action_feature_names": action["names"],
    }
    # The bundle normalises, tokenises and turns actions back itself.
    before = [
        {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
        {"registry_name": "to_batch_processor", "config": {}},
        {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}},
    ]
    files = {
        "config": config,
        "policy_preprocessor": {"name": "policy_preprocessor", "steps": before},
        "policy_postprocessor": {"name": "policy_postprocessor", "steps": before[2:]},
    }
    for name, content in files.items():
        (bundle / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
