"""`bench_device.sh`: which bundle is measured where, and that the report comes back. What it measures is the program's own test."""
import os
import signal
import subprocess
import time

import pytest
from conftest import PROJECT

BENCH = PROJECT / "scripts/bench_device.sh"
# `synthesize` prints where the bundle is; `bench` leaves a report.
PI0_EDGE = """case $1 in
synthesize) echo /filled ;;
bench) while [ "$1" != --output ]; do shift; done; mkdir -p "$2"; echo page >"$2/report.html" ;;
esac
"""
# Runs the command in a home of its own, as on the other side.
SSH = """while [ "${1#-}" != "$1" ]; do [ "$1" = -O ] && exit; shift 2; done
cd "$FAR" && shift && eval "$1"
"""
SCP = """while [ "${1#-}" != "$1" ]; do case $1 in -o) shift 2 ;; *) shift ;; esac; done
cp "$FAR"/${1#*:} "$2"
"""


@pytest.fixture
def there(machine):
    machine.program("pi0-edge", PI0_EDGE)
    machine.program("ssh", SSH)
    machine.program("scp", SCP)
    machine.environment["FAR"] = str(machine.root / "far")
    (machine.root / "far").mkdir()
    return machine


def test_here_with_a_bundle(there):
    output = there.root / "report"
    there.run(BENCH, "--bundle", "/a/bundle", "--minutes", "2", "--output", output, "--", "--threads", "2")
    assert there.calls("pi0-edge")[1:] == [f"[bench] [device] [/a/bundle] [--minutes] [2] [--output] [{output}] [--threads] [2]"]
    assert (output / "report.html").exists() and there.calls("ssh") == []


def test_there_with_a_synthetic_bundle(there):
    output = there.root / "report"
    output.mkdir()  # of an earlier run
    there.run(BENCH, "--host", "robot@jet", "--synthetic", "pi05", "--precision", "fp16", "--output", output)
    version, fill, bench = there.calls("pi0-edge")
    assert (version, fill) == ("[--version]", "[synthesize] [pi05] [--precision] [fp16]")
    assert bench == "[bench] [device] [/filled] [--minutes] [5] [--output] [.pi0-edge-bench]"
    assert (output / "report.html").read_text() == "page\n"
    assert os.listdir(there.root / "far") == [], "nothing stays on the other machine"
    assert all("[robot@jet]" in call for call in there.calls("ssh"))


def test_a_name_is_a_deployed_bundle(there):
    there.run(BENCH, "--host", "jet", "--bundle", "pick-bottle", "--output", there.root / "r")
    assert "[/var/lib/pi0-edge/bundles/pick-bottle]" in there.calls("pi0-edge")[-1]


def test_dry_run_runs_nothing(there):
    result = there.run(BENCH, "--dry-run", "--host", "robot@jet", "--synthetic", "pi0", "--output", "r")
    assert result.stdout.splitlines() == [
        "ssh robot@jet pi0-edge synthesize pi0 --precision fp32",
        "ssh robot@jet pi0-edge bench device DIRECTORY --minutes 5 --output .pi0-edge-bench",
        r"scp robot@jet:.pi0-edge-bench/\* r",
    ]
    assert there.log() == []


def test_wrong_use(there):
    for arguments, words in (
        (["--bundle", "a", "--synthetic", "pi0"], "not both"),
        (["--minutes"], "--minutes wants a value"),
        (["--fast"], "no argument called --fast"),
    ):
        result = there.run(BENCH, *arguments, ok=False)
        assert result.returncode == 2 and words in result.stderr
    there.program("pi0-edge", "exit 127")
    result = there.run(BENCH, "--host", "jet", ok=False)
    assert "install it by scripts/jetson.sh deploy jet" in result.stderr


def test_a_failed_bench_is_a_failure(there):
    there.program("pi0-edge", 'case $1 in bench) echo "no memory" >&2; exit 1 ;; esac')
    result = there.run(BENCH, "--bundle", "/b", "--output", there.root / "r", ok=False)
    assert "no memory" in result.stderr and "report:" not in result.stderr


@pytest.mark.parametrize("far", [True, False])
def test_told_to_stop_it_brings_what_there_is(there, far):
    there.program("pi0-edge", """[ "$1" = bench ] || exit 0
while [ "$1" != --output ]; do shift; done
trap 'mkdir -p "$2"; echo "so far" >"$2/report.html"; exit 130' INT
touch "$FAR/measuring"
while :; do sleep 0.05; done
""")
    # As sshd does; a job in the background has its signals ignored, and so has what it starts.
    there.program("ssh", SSH.replace('eval "$1"', 'exec env --default-signal=INT,QUIT sh -c "$1"'))
    output = there.root / "report"
    where = ["--host", "jet"] if far else []
    env = os.environ | {"PATH": f"{there.bin}:{os.environ['PATH']}", "LOG": str(there.root / "log")} | there.environment
    process = subprocess.Popen(
        [BENCH, *where, "--bundle", "/a/bundle", "--output", output], env=env, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not (there.root / "far/measuring").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    # As a terminal does: to everything that is in the foreground.
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert (output / "report.html").read_text() == "so far\n" and f"report: {output}/report.html" in said
    assert os.listdir(there.root / "far") == ["measuring"], "nothing else stays on the other machine"
