#!/usr/bin/env python3
"""Writes what lerobot looks for into a bundle that an earlier exporter made: lerobot_files.py BUNDLE..."""

import sys
from pathlib import Path

from exporter.lerobot_files import write_lerobot_files

if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
    sys.exit(__doc__)
for bundle in sys.argv[1:]:
    if not (Path(bundle) / "manifest.json").is_file():
        sys.exit(f"error: {bundle}: no manifest.json; give a bundle's directory")
    write_lerobot_files(Path(bundle))
