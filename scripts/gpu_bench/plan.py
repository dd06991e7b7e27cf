"""The steps of the measurement in the order of what they tell, each as commands that can be typed by hand."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = "scripts/gpu_bench"
PYTHON, REFERENCE = ".venv/bin/python", ".reference/bin/python"
# Half precision of the headline: both are measured, this one with everything around it.
MAIN = "fp16"


@dataclass(frozen=True)
class Command:
    argv: list[str]
    # Where stdout goes; the step's log if None.
    result: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)
    # A result in itself, such as a check that does not pass: the report tells it, and the step goes on.
    may_fail: bool = False

    def __str__(self) -> str:
        words = [f"{name}={value}" for name, value in self.environment.items()] + self.argv
        return " ".join(words) + (f" > {self.result}" if self.result else "")


@dataclass(frozen=True)
class Step:
    name: str
    what: str
    # About how long it takes at full size on a machine with a data-centre GPU and 16 cores.
    minutes: float
    commands: list[Command]
    # Steps whose outcome it needs.
    after: tuple[str, ...] = ()
    # Minutes after which it is ended.
    limit: float = math.inf
    # All commands at once: for what is not timed.
    together: bool = False

    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps([str(command) for command in self.commands]).encode()).hexdigest()


@dataclass(frozen=True)
class Choices:
    """What the user asked for."""

    provider: str
    size: str
    out: Path
    work: Path
    # Unpacked there: programs, bundles, Python modules. None where everything is built and installed.
    packed: Path | None
    prebuilt: Path | None
    cameras: list[int]
    precisions: list[str]
    chunks: int
    reference: bool
    threads: int

    @property
    def cuda(self) -> bool:
        return self.provider == "cuda"

    @property
    def state(self) -> Path:
        """Results, logs, and what is done: files by the dozen."""
        return self.work / "state" if self.packed else self.out

    def result(self, name: str) -> Path:
        return self.state / "results" / f"{name}.json"

    @property
    def library(self) -> str:
        if self.packed and self.cuda:
            return str(self.packed / "onnxruntime/libonnxruntime.so.1")
        return f".cache/onnxruntime{'-gpu' if self.cuda else ''}/libonnxruntime.so.1"

    @property
    def program(self) -> str:
        return str(self.programs / "pi0-edge")

    @property
    def programs(self) -> Path:
        return self.packed / "bin" if self.packed else self.prebuilt or Path("target/release")

    def pi0_edge(self, verb: str, *arguments: object) -> list[str]:
        chosen = ["--provider", self.provider, "--ort-library", self.library, "--threads", str(self.threads)]
        return [self.program, verb, *map(str, arguments), *chosen, "--format", "json"]


def make_plan(c: Choices) -> list[Step]:
    most = max(c.cameras)
    # On the CPU provider there is nothing to run bf16 with; `check` of the exporter's tests covers its arithmetic.
    usable = [p for p in c.precisions if c.cuda or p != "bf16"]
    main = MAIN if MAIN in usable else usable[0]
    others = [p for p in usable if p != main]
    steps = [_libraries(c), _tools(c), _doctor(c), _small_parity(c, usable)]
    steps += [_checkpoint(c), _bundle(c, main), *_latency(c, main, most), _profile(c, main, most)]
    if c.reference:
        steps += [_torch(c), _side_by_side(c, main, most, "bfloat16")]
    steps += [step for n in c.cameras if n != most for step in _latency(c, main, n, plain=False)]
    for precision in others:
        steps += [_bundle(c, precision), *_latency(c, precision, most, plain=precision != "fp32")]
    if c.reference:
        steps += [_golden(c), *(_full_parity(c, precision) for precision in usable)]
        steps += [_side_by_side(c, main, n, "bfloat16") for n in c.cameras if n != most]
        steps.append(_side_by_side(c, main, most, "float32"))
    return steps


def _libraries(c: Choices) -> Step:
    commands = [Command(["scripts/fetch_onnxruntime.sh", *(["--gpu"] if c.cuda else [])])]
    if c.cuda:
        commands += [Command(["python3", f"{HERE}/cuda.py", "install"]), which_gpu(c)]
    return Step("libraries", "ONNX Runtime and the CUDA libraries", 3, commands)


def which_gpu(c: Choices) -> Command:
    query = "--query-gpu=name,driver_version,memory.total,compute_cap,clocks.max.sm,power.limit"
    return Command(["nvidia-smi", query, "--format=csv"], c.result("gpu"), may_fail=True)


def _tools(c: Choices) -> Step:
    commands = [Command(["scripts/python_env.sh"])]
    if not c.prebuilt:
        commands += [
            Command(["cargo", "build", "--release", "--bin", "pi0-edge"]),
            Command(["cargo", "build", "--release", "--bench", "stage_runner"]),
        ]
    return Step("tools", "exporter and program", 4, commands, ("libraries",))


def _doctor(c: Choices) -> Step:
    return Step("doctor", "what this machine is and lacks", 0.1, [ask_doctor(c)], ("tools",))


def ask_doctor(c: Choices) -> Command:
    argv = [c.program, "doctor", "models/pi0-tiny", "--provider", c.provider, "--ort-library", c.library, "--format", "json"]
    return Command(argv, c.result("doctor"), may_fail=True)


def _small_parity(c: Choices, precisions: list[str]) -> Step:
    commands = []
    for policy in ("pi0", "pi05"):
        # The checkpoint that models/*-tiny and its golden data were made of.
        checkpoint = c.work / f"small/{policy}"
        commands += [
            Command(["rm", "-rf", str(checkpoint)]),
            Command([PYTHON, "scripts/make_checkpoint.py", str(checkpoint), "--policy", policy, "--size", "tiny", "--seed", "0"]),
            Command(["cp", "-r", f"models/{policy}-tiny/golden", str(checkpoint)]),
        ]
        for precision in precisions:
            bundle = c.work / f"small/{policy}-{precision}"
            export = [PYTHON, "scripts/export.py", str(checkpoint), str(bundle), "--precision", precision, "--force", "--quiet"]
            check = Command(c.pi0_edge("check", bundle), c.result(f"check-small-{policy}-{precision}"), may_fail=True)
            commands += [Command(export), check]
    return Step("small-parity", "every stage against lerobot, small policies in every precision", 0.5, commands, ("tools",))


def _checkpoint(c: Choices) -> Step:
    checkpoint = str(c.work / "checkpoint")
    given = ["--size", c.size, "--cameras", str(max(c.cameras))]
    make = [PYTHON, "scripts/make_checkpoint.py", checkpoint, *given, "--seed", "0"]
    observations = [PYTHON, f"{HERE}/observations.py", str(c.work / "observations"), *given]
    return Step(
        "checkpoint", f"random weights, {c.size} size", 3,
        [Command(["rm", "-rf", checkpoint]), Command(make), Command(observations)], ("tools",),
    )


def _export(c: Choices, precision: str, *more: str) -> Command:
    bundle = str(c.work / f"bundle-{precision}")
    chosen = ["--precision", precision, "--require-cameras", "none", "--no-range-scan", "--force", *more]
    return Command([PYTHON, "scripts/export.py", str(c.work / "checkpoint"), bundle, *chosen])


def _bundle(c: Choices, precision: str) -> Step:
    return Step(f"bundle-{precision}", f"its bundle in {precision}", 3, [_export(c, precision, "--no-golden")], ("checkpoint",))


def _bench(c: Choices, bundle: Path, observation: Path, *more: object) -> list[str]:
    return c.pi0_edge("bench", bundle, "--observation", observation, "--verify", "size", "--num-steps", 10, *more)


def _latency(c: Choices, precision: str, cameras: int, plain: bool = True) -> list[Step]:
    bundle, observation = c.work / f"bundle-{precision}", c.work / f"observations/{cameras}"
    measured = [measure(c, precision, bundle, observation, graphs) for graphs in (("on", "off") if plain else ("on",))]
    return [Step(name, what, 1, [command], (f"bundle-{precision}",)) for name, what, command in measured]


def measure(c: Choices, name: str, bundle: Path, observation: Path, graphs: str) -> tuple[str, str, Command]:
    """The name of a measurement of latency by stage, what it is, and its command; the observation's name is its number of cameras."""
    step = f"bench-{name}-{observation.name}-graphs-{graphs}"
    argv = _bench(c, bundle, observation, "-n", c.chunks, "--warmup", 10, "--cuda-graphs", graphs)
    what = f"latency by stage, {name}, {observation.name} cameras, CUDA graphs {graphs}"
    return step, what, Command(argv, c.result(step))


def _profile(c: Choices, precision: str, cameras: int) -> Step:
    commands = profile(c, c.work / f"bundle-{precision}", c.work / f"observations/{cameras}")
    return Step("profile", "which operators take the time", 1, commands, (f"bundle-{precision}",))


def profile(c: Choices, bundle: Path, observation: Path) -> list[Command]:
    profiles = c.work / "profiles"
    # Launches that wait for their kernel: the time of a node is then the device's and not only the launch's.
    blocking = {"CUDA_LAUNCH_BLOCKING": "1"} if c.cuda else {}
    bench = _bench(c, bundle, observation, "-n", 5, "--warmup", 2, "--cuda-graphs", "off", "--profile", profiles)
    return [
        Command(["rm", "-rf", str(profiles)]),
        Command(bench, c.result("profile-bench"), blocking),
        Command(["python3", f"{HERE}/hot_spots.py", str(profiles)], c.result("profile")),
    ]


def _torch(c: Choices) -> Step:
    commands = [Command(["scripts/reference_env.sh", *(["--gpu"] if c.cuda else [])])]
    return Step("torch", "lerobot's environment", 5, commands, ("libraries",))


def _side_by_side(c: Choices, precision: str, cameras: int, dtype: str) -> Step:
    name = f"torch-{dtype}-{cameras}"
    # Compiling for a CPU with every kernel tried out takes ten times as long, and this is a trial then.
    mode = [] if c.cuda else ["--compile-mode", "default"]
    command = side_by_side(
        c, name, REFERENCE, c.work / "checkpoint", c.work / f"bundle-{precision}", cameras, "--dtypes", dtype, "--compiled", *mode,
    )
    return Step(
        name, f"side by side with PyTorch in {dtype}, eager and compiled, {cameras} cameras", 9, [command],
        ("torch", f"bundle-{precision}"),
    )


def side_by_side(c: Choices, name: str, python: str, checkpoint: Path, bundle: Path, cameras: int, *more: str) -> Command:
    runner = [f"--runner={c.programs / 'stage_runner'}"] if c.packed or c.prebuilt else []
    argv = [
        python, "benches/side_by_side.py", "--checkpoint", str(checkpoint), "--bundle", str(bundle), "--provider", c.provider,
        "--ort-library", c.library, "--stages", "chunk", "--views", str(cameras), "--rounds", str(min(c.chunks, 30)),
        "--prompt-tokens", "24" if c.size == "tiny" else "48", "--threads", str(c.threads), "--no-assembly", "--format", "json",
        *more, *runner,
    ]
    # What was compiled before the step was cut short need not be compiled again.
    environment = {"TORCHINDUCTOR_CACHE_DIR": str((c.work / "inductor").absolute()), "PI0_REFERENCE_GPU": "1" if c.cuda else "0"}
    return Command(argv, c.result(name), environment)


def _golden(c: Choices) -> Step:
    observation = str(c.work / f"observations/{max(c.cameras)}")
    argv = [REFERENCE, "scripts/reference.py", str(c.work / "checkpoint"), "--observation", observation, "--threads", str(c.threads)]
    return Step("golden", "lerobot's outputs by stage in f32, on the CPU", 6, [Command(argv)], ("torch", "checkpoint"))


def _full_parity(c: Choices, precision: str) -> Step:
    name = f"check-{precision}"
    check = Command(c.pi0_edge("check", c.work / f"bundle-{precision}"), c.result(name), may_fail=True)
    return Step(name, f"every stage against lerobot, {c.size} size, {precision}", 4, [_export(c, precision), check], ("golden",))
