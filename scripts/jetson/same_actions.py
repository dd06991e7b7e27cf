#!/usr/bin/env python3
"""Compares the actions of two `pi0-edge run --format json` outputs.

    same_actions.py TOLERANCE A.json B.json      exit 0 when every action differs by no more than TOLERANCE
"""
import json
import math
import sys

tolerance, *files = sys.argv[1:]
a, b = (json.load(open(file))["actions"] for file in files)
if not a or [len(row) for row in a] != [len(row) for row in b]:
    sys.exit(f"the action chunks differ in shape: {len(a)} and {len(b)} rows")
differences = [abs(x - y) for left, right in zip(a, b) for x, y in zip(left, right)]
worst = max(differences, key=lambda d: math.inf if math.isnan(d) else d)
print(f"{len(a)} x {len(a[0])} actions, largest difference {worst:.1e}, allowed {tolerance}", file=sys.stderr)
if not worst <= float(tolerance):
    sys.exit("the action chunks differ")
