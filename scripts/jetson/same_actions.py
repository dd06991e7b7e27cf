#!/usr/bin/env python3
"""Compares the actions of two `pi0-edge run --format json` outputs, or of two tables of the example infer_once.

    same_actions.py TOLERANCE A.json B.json      exit 0 when every action differs by no more than TOLERANCE
    same_actions.py TOLERANCE A.txt B.txt        the same of tables, whose first column is the row's number
"""
import json
import math
import sys

tolerance, *files = sys.argv[1:]


def actions(file):
    text = open(file).read()
    if file.endswith(".json"):
        return json.loads(text)["actions"]
    return [[float(value) for value in line.split()[1:]] for line in text.splitlines()]


a, b = map(actions, files)
if not a or [len(row) for row in a] != [len(row) for row in b]:
    sys.exit(f"the action chunks differ in shape: {len(a)} and {len(b)} rows")
differences = [abs(x - y) for left, right in zip(a, b) for x, y in zip(left, right)]
worst = max(differences, key=lambda d: math.inf if math.isnan(d) else d)
print(f"{len(a)} x {len(a[0])} actions, largest difference {worst:.1e}, allowed {tolerance}", file=sys.stderr)
if not worst <= float(tolerance):
    sys.exit("the action chunks differ")
