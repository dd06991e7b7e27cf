#!/usr/bin/env python3
"""Times lerobot's own code against pi0-edge, stage by stage, alternated in one run.

Needs the reference environment, a full-size checkpoint and its bundle:

  scripts/reference_env.sh
  cargo build --release --bench stage_runner
  .reference/bin/python benches/side_by_side.py --checkpoint CHECKPOINT --bundle BUNDLE

Every round runs each variant once, starting with another one each time, so that a slow
spell of the machine hits all of them. Ratios are of medians.

On a GPU, with an environment made by `scripts/reference_env.sh --gpu`, whole chunks:

  PI0_REFERENCE_GPU=1 .reference/bin/python benches/side_by_side.py --checkpoint CHECKPOINT \\
    --bundle BUNDLE --provider cuda --stages chunk --compiled --no-assembly
"""

import argparse
import contextlib
import functools
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys
import time
import warnings

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from reference import environment  # noqa: E402

STAGES = ("vision", "prefix", "denoise_step")
STEPS = 10
DEFAULT_ROUNDS = {"vision": 10, "prefix": 5, "denoise_step": 30, "chunk": 30}
OURS = "pi0-edge"


def main():
    options = parser().parse_args()
    # Threads of a library must be limited before it starts them.
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    os.environ["KINETO_LOG_LEVEL"] = "5"  # torch's profiler reports that there is no GPU
    environment.prepare(options.threads)
    import torch
    from reference.stages import Stages

    device = "cuda" if options.provider in ("cuda", "tensorrt") else "cpu"
    if device == "cuda":
        if not torch.cuda.is_available():
            sys.exit("side_by_side: torch sees no GPU; make its environment with scripts/reference_env.sh --gpu and set PI0_REFERENCE_GPU=1")
        # What lerobot's own scripts set: without it, float32 would not use the matrix units.
        torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(False)
    stages = Stages(
        options.checkpoint, options.views, options.prompt_tokens, options.vision_heads, device, options.compile_mode, options.random_weights
    )
    report = {"environment": describe_machine(options, device), "stages": {}, "prefix_assembly": []}
    with torch.no_grad():
        for stage in options.stages:
            progress(f"{stage}: loading")
            report["stages"][stage] = time_stage(stages, stage, options)
        if options.assembly:
            progress("prefix assembly")
            report["prefix_assembly"] = [measure_assembly(stages, views) for views in (1, 2, 3)]
    report["chunk_ms"] = whole_chunks(report["stages"])
    report["environment"]["load_at_end"] = os.getloadavg()[0]
    if device == "cuda":
        report["environment"]["lerobot_gpu_mb"] = round(torch.cuda.max_memory_allocated() / 2**20)
    print({"json": as_json, "md": as_markdown, "text": as_text}[options.format](report))


def time_stage(stages, stage, options):
    process = None
    with contextlib.ExitStack() as resources:
        variants = {}
        for dtype in options.dtypes:
            run = stages.build(stage, dtype)
            variants[f"lerobot {dtype}"] = local(run, stages.device)
            if options.compiled and stage == "chunk":
                variants[f"lerobot {dtype} compiled"] = local(functools.partial(run, compile=True), stages.device)
        if options.bundle:
            runner = resources.enter_context(Runner(options))
            if runner.prefix_rows not in (None, rows := stages.rows_of_prefix()):
                sys.exit(f"side_by_side: the bundle's prefix has {runner.prefix_rows} rows, lerobot's {rows}: not the same work")
            variants[OURS], process = lambda: runner.run(stage), runner.process.pid
        processes = {name: process if name == OURS else os.getpid() for name in variants}
        first = {}
        for name, run in variants.items():
            progress(f"{stage}: warming up {name}")
            first[name] = run()
            # PyTorch's compiler captures CUDA graphs in the second and third run.
            for _ in range(2 if stages.device == "cuda" else 0):
                run()
            progress(f"{stage}: the first took {first[name] / 1e3:.1f} s")
        times, faults = {name: [] for name in variants}, dict.fromkeys(variants, 0)
        order = list(variants)
        for index in range(options.rounds or DEFAULT_ROUNDS[stage]):
            for name in order[index % len(order) :] + order[: index % len(order)]:
                before = major_faults(processes[name])
                times[name].append(variants[name]())
                faults[name] += major_faults(processes[name]) - before
            progress(f"{stage}: round {index + 1}: " + ", ".join(f"{name} {times[name][-1]:.0f} ms" for name in order))
    results = {
        name: summary(values) | {"first_ms": first[name], "major_page_faults": faults[name]} for name, values in times.items()
    }
    return {"variants": results, "ratios": ratios(results)}


def local(run, device="cpu"):
    import torch

    def timed():
        start = time.perf_counter_ns()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter_ns() - start) / 1e6

    return timed


class Runner:
    """Our side: a process that does one stage for every line it is sent."""

    def __init__(self, options):
        command = shlex.split(str(options.runner or built_runner()))
        arguments = [*command, "--bundle", str(options.bundle), "--threads", str(options.threads)]
        given = {"--provider": options.provider, "--ort-library": options.ort_library, "--views": options.views if options.views != 3 else None}
        arguments += [str(word) for pair in given.items() if pair[1] is not None for word in pair]
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"},
        )  # fmt: skip

    def __enter__(self):
        ready, _, rows = self.read().partition(" prefix_len=")
        if ready != "ready":
            sys.exit(f"side_by_side: the stage runner said {ready!r}, not 'ready'")
        self.prefix_rows = int(rows) if rows else None
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()

    def run(self, stage):
        self.process.stdin.write(stage + "\n")
        line = self.read()
        try:
            return json.loads(line)["ms"]
        except (ValueError, KeyError, TypeError):
            sys.exit(f"side_by_side: the stage runner answered '{stage}' with {line!r}")

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"side_by_side: the stage runner ended with exit code {self.process.wait()}")
        return line.strip()


def built_runner():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "deps"
    built = [path for path in target.glob("stage_runner-*") if not path.suffix and os.access(path, os.X_OK)]
    if not built:
        sys.exit("side_by_side: no stage runner; build it with 'cargo build --release --bench stage_runner' or give --runner")
    return max(built, key=lambda path: path.stat().st_mtime)


def measure_assembly(stages, views, rounds=200):
    """The prefix embedding: lerobot's list and concatenation, against writes into one tensor made once."""
    import torch

    concatenate, table, tokens, embeds = stages.prefix_assembly(views)
    per_view, width = embeds[0].shape[1:]
    prefix = torch.empty(1, views * per_view + len(tokens), width)
    slots = [prefix[:, i * per_view : (i + 1) * per_view] for i in range(views)]
    token_rows = prefix[0, views * per_view :]

    # lerobot scales the rows it looks up; pi0-edge's table is scaled once, when it is exported.
    looked_up, rows = torch.unique(tokens, return_inverse=True)
    scaled = table[looked_up] * torch.tensor(width**0.5)

    def write_all():
        for slot, embed in zip(slots, embeds):
            slot.copy_(embed)
        torch.index_select(scaled, 0, rows, out=token_rows)
        return prefix

    def write_tokens():
        # What pi0-edge does: the vision encoder's outputs are bound to the slots.
        torch.index_select(scaled, 0, rows, out=token_rows)
        return prefix

    variants = {
        "list and torch.cat (lerobot)": concatenate,
        "writes into one tensor": write_all,
        "writes, images already in place": write_tokens,
    }
    if not torch.equal(concatenate(), write_all()):
        sys.exit("side_by_side: the ways to assemble the prefix do not agree")
    timed = {name: local(run) for name, run in variants.items()}
    times = {name: [] for name in variants}
    for _ in range(10):
        for run in variants.values():
            run()
    for _ in range(rounds):
        for name, run in timed.items():
            times[name].append(run())
    results = {name: summary(values) | allocated(variants[name]) for name, values in times.items()}
    return {"views": views, "rows": prefix.shape[1], "width": width, "variants": results}


def allocated(run):
    """Bytes and number of torch's allocations in one call."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    # It warns that it may drop events between cycles; there is one cycle.
    warnings.filterwarnings("ignore", module="torch.profiler")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    sizes = [event.nbytes() for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    taken = [size for size in sizes if size > 0]
    return {"allocated_bytes": sum(taken), "allocations": len(taken)}


def summary(values):
    ordered = sorted(values)

    def quantile(fraction):
        return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]

    return {"n": len(ordered), "min_ms": ordered[0], "p50_ms": quantile(0.5), "p90_ms": quantile(0.9)}


def ratios(results):
    if OURS not in results:
        return {}
    return {name: result["p50_ms"] / results[OURS]["p50_ms"] for name, result in results.items() if name != OURS}


def whole_chunks(stages):
    """Sums of the stages' medians: no variant's chunk is run whole, its weights would not fit beside the others'."""
    if set(stages) != set(STAGES):
        return {}
    calls = {"vision": 1, "prefix": 1, "denoise_step": STEPS}
    variants = stages["vision"]["variants"]
    return {name: sum(n * stages[stage]["variants"][name]["p50_ms"] for stage, n in calls.items()) for name in variants}


def major_faults(process):
    """Pages read from the disk so far: while timing, that is weights that memory was too small to keep."""
    fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(fields[9])


def describe_machine(options, device):
    import torch

    cpu = {}
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            cpu[name.strip()] = value.strip()
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu.get("model name", platform.processor() or "unknown"),
        "cpu_features": [name for name in wanted if name in cpu.get("flags", "").split()],
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        **({"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}),
        "threads": options.threads,
        "views": options.views,
        "prompt_tokens": options.prompt_tokens,
        "load_at_start": os.getloadavg()[0],
        "python": platform.python_version(),
        **environment.versions(),
    }


def as_json(report):
    return json.dumps(report, indent=1)


def tables(report):
    rows = [
        [stage, name, r["n"], f"{r['min_ms']:.1f}", f"{r['p50_ms']:.1f}", f"{r['p90_ms']:.1f}", as_ratio(entry["ratios"].get(name))]
        for stage, entry in report["stages"].items()
        for name, r in entry["variants"].items()
    ]
    chunks = report["chunk_ms"]
    rows += [
        [f"chunk (sum, {STEPS} steps)", name, "", "", f"{total:.1f}", "", as_ratio(OURS in chunks and name != OURS and total / chunks[OURS])]
        for name, total in chunks.items()
    ]
    yield ["stage", "variant", "n", "min ms", "p50 ms", "p90 ms", f"p50 / {OURS}"], rows
    rows = [
        [f"{entry['views']} x {entry['rows']}", name, r["n"], f"{1e3 * r['min_ms']:.1f}", f"{1e3 * r['p50_ms']:.1f}",
         f"{1e3 * r['p90_ms']:.1f}", r["allocated_bytes"], r["allocations"]]
        for entry in report["prefix_assembly"]
        for name, r in entry["variants"].items()
    ]  # fmt: skip
    yield ["views x rows", "prefix assembly", "n", "min us", "p50 us", "p90 us", "bytes allocated", "allocations"], rows


def as_ratio(ratio):
    return f"{ratio:.2f}x" if ratio else ""


def notes(report):
    machine = report["environment"]
    yield ", ".join(f"{name} {value}" for name, value in machine.items())
    busy = max(machine["load_at_start"], machine["load_at_end"] - machine["threads"])
    if busy > machine["cores"] / 2:
        yield f"the machine had other work (load {busy:.1f} on {machine['cores']} cores): absolute times mean little, ratios not much more"
    for stage, entry in report["stages"].items():
        for name, result in entry["variants"].items():
            if result["major_page_faults"]:
                yield f"{stage}, {name}: {result['major_page_faults']} page faults read the disk while timing: memory was short"


def as_markdown(report):
    lines = []
    for head, rows in tables(report):
        if rows:
            lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
            lines += [f"| {' | '.join(map(str, row))} |" for row in rows] + [""]
    return "\n".join(lines + [f"- {note}" for note in notes(report)])


def as_text(report):
    lines = []
    for head, rows in tables(report):
        if rows:
            widths = [max(len(str(row[i])) for row in [head, *rows]) for i in range(len(head))]
            lines += ["  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [head, *rows]] + [""]
    return "\n".join(lines + list(notes(report)))


def progress(text):
    print(text, file=sys.stderr, flush=True)


def parser():
    described, _, rest = __doc__.partition("\n\n")
    result = argparse.ArgumentParser(description=described, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--checkpoint", type=pathlib.Path, required=True, metavar="DIR")
    result.add_argument("--random-weights", action="store_true", help="lerobot's, in the shapes of CHECKPOINT/shapes.json (whole chunks only)")
    result.add_argument("--bundle", type=pathlib.Path, metavar="DIR", help="without it, only lerobot is timed")
    result.add_argument("--runner", metavar="COMMAND", help="our side (default: the stage_runner that cargo built last)")
    result.add_argument("--threads", type=int, default=2, metavar="N")
    result.add_argument("--rounds", type=int, metavar="N", help="default: " + ", ".join(f"{n} {s}" for s, n in DEFAULT_ROUNDS.items()))
    known = (*STAGES, "chunk")
    result.add_argument("--stages", type=names(known), default=STAGES, metavar="NAME,...", help="of " + ", ".join(known))
    result.add_argument("--provider", choices=("cpu", "cuda", "tensorrt"), help="pi0-edge's; lerobot runs on the same device (default: cpu)")
    result.add_argument("--ort-library", metavar="FILE", help="pi0-edge's ONNX Runtime")
    result.add_argument("--compiled", action="store_true", help="also lerobot compiled, as its compile_model does (whole chunks only)")
    result.add_argument("--compile-mode", metavar="MODE", help="torch.compile's (default: the checkpoint's, which lerobot sets to max-autotune)")
    result.add_argument("--views", type=int, default=3, metavar="N", help="cameras (default: 3)")
    result.add_argument("--prompt-tokens", type=int, default=48, metavar="N", help="default: 48")
    result.add_argument("--dtypes", type=names(("float32", "bfloat16")), default=("float32", "bfloat16"), metavar="NAME,...")
    result.add_argument("--no-assembly", dest="assembly", action="store_false", help="leave out the prefix assembly")
    result.add_argument("--vision-heads", type=int, default=16, metavar="N")
    result.add_argument("--format", choices=("text", "md", "json"), default="text")
    return result


def names(known):
    def parse(text):
        given = tuple(name for name in text.split(",") if name)
        if unknown := set(given) - set(known):
            raise argparse.ArgumentTypeError(f"no '{sorted(unknown)[0]}'; there are {', '.join(known)}")
        return given

    return parse


if __name__ == "__main__":
    main()
