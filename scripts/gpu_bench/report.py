"""report.json and report.md of whatever has been measured so far."""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
from pathlib import Path

from plan import Choices, Step

# Milliseconds of one PI0 chunk of ten steps at full size in 16 bits, by cameras: the larger of memory traffic and arithmetic of each
# stage at the card's published rates.
ROOFLINE_MS = {"H200": {1: 3.2, 2: 4.8, 3: 6.3}, "H100": {1: 3.9, 2: 5.4, 3: 7.0}}
AIMS = {"roofline": 3.0, "compiled": 3.0, "eager": 10.0}
STAGES = ("preprocess", "vision", "prefix", "denoise_step", "chunk")


def write(c: Choices, plan: list[Step], outcomes: dict[str, str]) -> None:
    results = {path.stem: _read(path) for path in sorted((c.state / "results").glob("*.json"))}
    content = {
        "machine": _machine(results),
        "when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": _said(["git", "rev-parse", "--short", "HEAD"]),
        "provider": c.provider, "size": c.size, "chunks": c.chunks, "threads": c.threads,
        "steps": {step.name: {"what": step.what, "outcome": outcomes[step.name]} for step in plan},
        "aims": _aims(c, results),
        "results": results,
    }
    (c.out / "report.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (c.out / "report.md").write_text("\n".join(_markdown(content)) + "\n", encoding="utf-8")


def _read(path: Path) -> dict | str | None:
    """A result: JSON, or the text of a tool that writes none; None if the command wrote nothing."""
    text = path.read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text.strip() or None


def _machine(results: dict) -> dict:
    return {
        "gpu": results.get("gpu"), "cpu": _cpu(), "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _said(argv: list[str]) -> str | None:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _benches(results: dict) -> list[tuple[str, int, str, dict]]:
    """(bundle, cameras, CUDA graphs, result) of each run, 3 cameras first."""
    found = []
    for name, result in results.items():
        if name.startswith("bench-") and isinstance(result, dict):
            bundle, cameras, _, graphs = name.removeprefix("bench-").rsplit("-", 3)
            found.append((bundle, int(cameras), graphs, result))
    return sorted(found, key=lambda run: (run[0], -run[1], run[2] != "on"))


def _roofline(results: dict) -> dict[int, float] | None:
    """That of the card, if it is one of those above."""
    return next((times for card, times in ROOFLINE_MS.items() if card in str(results.get("gpu"))), None)


def _aims(c: Choices, results: dict) -> list[dict]:
    """What was hoped for next to what was measured; only what was measured on a GPU at full size."""
    aims = []
    if not (c.cuda and c.size == "full"):
        return aims
    roofline = _roofline(results)
    for bundle, cameras, graphs, result in _benches(results):
        if roofline and "fp32" not in bundle and "pi05" not in bundle and graphs == "on":
            times = result["stages"]["chunk"]["p50_ms"] / roofline[cameras]
            what = f"chunk, {bundle}, {cameras} cameras: times the roofline of {roofline[cameras]} ms"
            aims.append({"what": what, "aim": AIMS["roofline"], "measured": round(times, 2), "met": times <= AIMS["roofline"]})
    for name, result in results.items():
        if not (name.startswith("torch-") and isinstance(result, dict)):
            continue
        for variant, ratio in result["stages"]["chunk"]["ratios"].items():
            aim = AIMS["compiled" if variant.endswith("compiled") else "eager"]
            what = f"faster than {variant}, {name.rpartition('-')[2]} cameras"
            aims.append({"what": what, "aim": aim, "measured": round(ratio, 2), "met": ratio >= aim})
    return aims


def _markdown(content: dict):
    results, machine = content["results"], content["machine"]
    yield f"# pi0-edge on the {content['provider']} provider, {content['size']} size"
    yield ""
    gpu = str(machine["gpu"]).replace("\n", " — ") if machine["gpu"] else "no GPU in use"
    yield f"- {gpu}; {machine['cpu']}; {machine['system']}"
    yield f"- commit {content['commit']}, {content['when']}; {content['threads']} CPU threads"
    yield f"- n = {content['chunks']} chunks of 10 steps in each run"
    if content["size"] != "full" or content["provider"] != "cuda":
        yield "- **a trial run of the procedure: its times say nothing about a GPU**"
    yield from _latency(content, results)
    yield from _aims_table(content)
    yield from _torch(results)
    yield from _parity(results)
    yield from _profile(results)
    yield from ["", "## Steps", "", *_table(["step", "what", "outcome"], [
        [name, step["what"], step["outcome"]] for name, step in content["steps"].items()
    ])]


def _ms(value: float | None) -> str:
    """A percentile, which is missing where there are too few values for it."""
    return "–" if value is None else f"{value:.2f}"


def _latency(content: dict, results: dict):
    rows = []
    ideal = _roofline(results)
    for bundle, cameras, graphs, result in _benches(results):
        roofline = "–"
        if ideal and content["size"] == "full" and "fp32" not in bundle and "pi05" not in bundle and content["provider"] == "cuda":
            roofline = f"{result['stages']['chunk']['p50_ms'] / ideal[cameras]:.2f}"
        times = [" / ".join(_ms(result["stages"][stage][p]) for p in ("p50_ms", "p90_ms", "p99_ms")) for stage in STAGES]
        moved, memory = result.get("host_device_bytes") or {}, result.get("device_memory") or {}
        rows.append([
            bundle, cameras, graphs, result["prefix_len"], *times, result["stages"]["chunk"]["n"], roofline,
            f"{moved.get('to_device', 0)} / {moved.get('from_device', 0)}",
            f"{memory['used_mb']:.0f} MB" if memory else "–",
        ])
    head = ["bundle", "cameras", "CUDA graphs", "prefix", *(f"{stage} ms" for stage in STAGES), "n", "× roofline",
            "bytes to / from device", "GPU memory"]
    yield from ["", "## Latency by stage: p50 / p90 / p99", "", *_table(head, rows)]


def _aims_table(content: dict):
    if content["aims"]:
        rows = [[a["what"], a["aim"], a["measured"], "yes" if a["met"] else "**no**"] for a in content["aims"]]
        yield from ["", "## Aims", "", *_table(["", "aim", "measured", "met"], rows)]


def _torch(results: dict):
    rows = []
    for name, result in results.items():
        if name.startswith("torch-") and isinstance(result, dict):
            chunk = result["stages"]["chunk"]
            for variant, times in chunk["variants"].items():
                ratio = chunk["ratios"].get(variant)
                numbers = [f"{times[key]:.2f}" for key in ("min_ms", "p50_ms", "p90_ms")]
                first = f"{times['first_ms'] / 1e3:.1f}"
                rows.append([name.rpartition("-")[2], variant, times["n"], first, *numbers, f"{ratio:.2f}" if ratio else ""])
    if rows:
        head = ["cameras", "whole chunk", "n", "first s", "min ms", "p50 ms", "p90 ms", "× pi0-edge"]
        yield from ["", "## Side by side with lerobot's PyTorch, alternated in one run", "", *_table(head, rows)]


def _parity(results: dict):
    rows = []
    for name, result in results.items():
        if not name.startswith("check-"):
            continue
        what = name.removeprefix("check-")
        if not isinstance(result, dict):
            rows.append([what, "**did not run**", "", "", "", ""])
            continue
        worst: dict[str, dict] = {}
        for case in result["cases"]:
            for stage, row in case["stages"].items():
                if stage not in worst or (row["relative_error"] or 1e9) > (worst[stage]["relative_error"] or 1e9):
                    worst[stage] = row
        for stage, row in worst.items():
            error = "not finite" if row["relative_error"] is None else f"{row['relative_error']:.1e}"
            absolute = "not finite" if row["max_abs_error"] is None else f"{row['max_abs_error']:.1e}"
            verdict = "pass" if row["pass"] else "**FAIL**"
            rows.append([what, stage, absolute, f"{error} of {row['tolerance']:.0e}", f"{row['cosine']:.7f}", verdict])
    if rows:
        head = ["bundle", "stage", "max abs error", "relative, of allowed", "cosine", ""]
        yield from ["", "## Parity with lerobot by stage, the worst of all cases", "", *_table(head, rows)]


def _profile(results: dict):
    profile = results.get("profile")
    if not isinstance(profile, dict):
        return
    yield from ["", "## What the time goes to, one run of each graph, launches waiting for their kernels", ""]
    rows = []
    for graph, summary in profile.items():
        operators = [f"{o['operator']} × {o['nodes']}: {o['ms']:.3f} ms ({o['share']:.0%})" for o in summary["operators"][:6]]
        slowest = ", ".join(f"{node['node']} {node['ms']:.3f}" for node in summary["slowest_nodes"][:3])
        nodes = ", ".join(f"{name} {n}" for name, n in summary["nodes_by_provider"].items())
        rows.append([graph, f"{summary['ms_per_run']:.3f}", f"{summary['ms_outside_nodes']:.3f}", nodes, "; ".join(operators), slowest])
    yield from _table(["graph", "ms a run", "ms outside nodes", "nodes", "operators", "slowest nodes, ms"], rows)


def _table(head: list[str], rows: list[list]) -> list[str]:
    if not rows:
        return ["nothing yet"]
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(map(str, row))} |" for row in rows)]
