"""benches/side_by_side.py runs through at small size, against a stand-in for our side."""

import json
import sys

from conftest import ROOT, run

RUNNER = """
import sys
assert sys.argv[1:] == ["--bundle", "some bundle", "--threads", "1"]
print("ready prefix_len=96", flush=True)
for line in sys.stdin:
    print('{"ms": %d}' % {"vision": 2, "prefix": 3, "denoise_step": 1}[line.strip()], flush=True)
"""


def test_every_variant_is_timed(tiny, tmp_path):
    (tmp_path / "runner.py").write_text(RUNNER)
    command = [sys.executable, ROOT / "benches" / "side_by_side.py", "--checkpoint", tiny, "--bundle", "some bundle", "--rounds", "3"]
    runner = ["--runner", f"{sys.executable} {tmp_path / 'runner.py'}", "--threads", "1"]
    report = json.loads(run(*command, *runner, "--format", "json"))
    for stage, ms in {"vision": 2, "prefix": 3, "denoise_step": 1}.items():
        variants = report["stages"][stage]["variants"]
        assert variants.keys() == {"lerobot float32", "lerobot bfloat16", "pi0-edge"}
        assert variants["pi0-edge"] == {"n": 3, "min_ms": ms, "p50_ms": ms, "p90_ms": ms, "major_page_faults": 0}
        ratio = variants["lerobot float32"]["p50_ms"] / ms
        assert report["stages"][stage]["ratios"]["lerobot float32"] == ratio
    assert report["chunk_ms"]["pi0-edge"] == 15
    assert [entry["rows"] for entry in report["prefix_assembly"]] == [64, 80, 96]
    for entry in report["prefix_assembly"]:
        variants = entry["variants"]
        # The concatenation, if nothing else, is allocated anew each time.
        assert variants["list and torch.cat (lerobot)"]["allocated_bytes"] > 4 * entry["rows"] * entry["width"]
        assert variants["writes, images already in place"]["allocated_bytes"] == 0


def test_a_runner_that_is_missing_or_talks_nonsense_is_an_error(tiny, tmp_path):
    import subprocess

    command = [sys.executable, str(ROOT / "benches" / "side_by_side.py"), "--checkpoint", str(tiny), "--bundle", "b"]
    for script, message in (("", "ended with exit code 0"), ("print('ready prefix_len=7')", "not the same work"), ("print('hello')", "said 'hello', not 'ready'")):
        (tmp_path / "runner.py").write_text(script)
        runner = ["--stages", "vision", "--no-assembly", "--runner", f"{sys.executable} {tmp_path / 'runner.py'}"]
        done = subprocess.run([*command, *runner], capture_output=True, text=True)
        assert done.returncode == 1 and message in done.stderr
