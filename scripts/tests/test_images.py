"""The frames that the command line's tests read, against Pillow."""
from pathlib import Path

import make_images

IMAGES = Path(__file__).parents[2] / "crates/pi0-edge-cli/tests/images"


def test_what_is_kept_is_what_pillow_reads():
    files = sorted(IMAGES.glob("*.[pj][np]g"))
    assert len(files) > 20
    for file in files:
        assert make_images.read(file) == file.with_suffix(".rgb").read_bytes(), file.name
