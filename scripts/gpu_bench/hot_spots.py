#!/usr/bin/env python3
"""Sums up ONNX Runtime's profiles: which operators take how much of which graph's time, per run.

usage: hot_spots.py DIR; DIR has one profile for each graph, GRAPH_DATE_TIME_MS.json
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

TOP_NODES = 10


def summarise(profile: Path) -> dict:
    """Milliseconds per run by operator, the slowest nodes, and what lies between nodes."""
    events = json.loads(profile.read_text())
    runs = [event for event in events if event.get("name") == "model_run"]
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    if not runs or not nodes:
        raise ValueError(f"{profile}: no runs in it")
    # Early runs allocate and choose algorithms: the last half is what a robot sees.
    kept = runs[len(runs) // 2 :]
    first = min(event["ts"] for event in kept)
    nodes = [event for event in nodes if event["ts"] >= first]
    count = len(kept)
    operators, single = defaultdict(lambda: [0.0, 0]), defaultdict(float)
    providers = defaultdict(int)
    for event in nodes:
        arguments = event["args"]
        operator = operators[arguments["op_name"]]
        operator[0] += event["dur"]
        operator[1] += 1
        single[event["name"].removesuffix("_kernel_time"), arguments["op_name"]] += event["dur"]
        providers[arguments.get("provider", "?")] += 1
    total = sum(event["dur"] for event in kept)
    in_nodes = sum(event["dur"] for event in nodes)

    def per_run(microseconds: float) -> float:
        return round(microseconds / count / 1e3, 4)

    by_time = sorted(operators.items(), key=lambda item: -item[1][0])
    slowest = sorted(single.items(), key=lambda item: -item[1])[:TOP_NODES]
    return {
        "runs": count,
        "ms_per_run": per_run(total),
        "ms_outside_nodes": per_run(total - in_nodes),
        "nodes_by_provider": {name: round(n / count) for name, n in providers.items()},
        "operators": [
            {"operator": name, "ms": per_run(took), "share": round(took / total, 4), "nodes": round(n / count)}
            for name, (took, n) in by_time
        ],
        "slowest_nodes": [{"node": name, "operator": operator, "ms": per_run(took)} for (name, operator), took in slowest],
    }


def main(directory: Path) -> dict:
    profiles = sorted(directory.glob("*.json"))
    if not profiles:
        sys.exit(f"hot_spots: {directory} has no profiles")
    # ONNX Runtime puts date, time and milliseconds after the name it is given.
    return {path.stem.rsplit("_", 3)[0]: summarise(path) for path in profiles}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__.splitlines()[-1])
    print(json.dumps(main(Path(sys.argv[1])), indent=1))
