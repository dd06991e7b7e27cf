"""The units under a real systemd: the amd64 package, installed in a root file system that is booted in namespaces.

Opt-in, for it takes root, a network and minutes: PI0_EDGE_TEST_BOOT=1, after `jetson.sh build` and `deb`, both with
--arch amd64. Three control programs: a few lines of Python that try what the unit promises, and the examples in C and in
Rust, whose runtime tells systemd how inference goes. The one in C is stopped in the middle, as if it hung."""
import os
import re
import subprocess

import pytest
from conftest import PROJECT

HERE = PROJECT / "scripts/tests_jetson"
pytestmark = pytest.mark.skipif(not os.environ.get("PI0_EDGE_TEST_BOOT"), reason="opt-in: PI0_EDGE_TEST_BOOT")

CONTROL = """#!/usr/bin/python3
import os, socket, time
notify = lambda text: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(text, os.environ["NOTIFY_SOCKET"])
say = lambda *words: print("control:", *words, flush=True)
say("greeting", os.environ["GREETING"])
say("root" if os.getuid() == 0 else "no root")
say("cores", *sorted(os.sched_getaffinity(0)))
os.sched_setaffinity(0, {0})
say("pinned to", *os.sched_getaffinity(0))
try:
    open("/usr/file", "w")
except OSError as error:
    say(error.strerror)
open(os.environ["LOGS_DIRECTORY"] + "/post-mortem", "w").write("kept")
notify(b"READY=1")
for _ in range(3):
    time.sleep(1)
    notify(b"WATCHDOG=1")
say("hanging")
time.sleep(1000)
"""
EXAMPLES = ("c-robot", "rust-robot")
SCRIPT = """#!/bin/sh
for robot in c-robot rust-robot; do
    systemctl start pi0-edge@$robot && echo $robot: started
    sleep 3
    echo $robot: $(systemctl show -P StatusText pi0-edge@$robot)
done
kill -STOP $(systemctl show -P MainPID pi0-edge@c-robot)
sleep 12
for robot in c-robot rust-robot; do
    echo $robot: $(systemctl is-active pi0-edge@$robot), $(systemctl show -P NRestarts pi0-edge@$robot) restarts
    systemctl stop pi0-edge@$robot
    echo $robot: $(systemctl show -P Result pi0-edge@$robot)
done
journalctl --no-pager -o cat -u pi0-edge@c-robot
systemctl start pi0-edge@arm-control && echo started
systemctl show -p LimitRTPRIO -p LimitMEMLOCK -p WatchdogUSec pi0-edge@arm-control
systemctl is-active pi0-edge-prepare
sleep 12
systemctl show -p NRestarts pi0-edge@arm-control
systemctl start pi0-edge@missing || echo 'missing: refused'
systemctl start pi0-edge@failing || echo 'failing: not started'
sleep 10
echo failing $(systemctl show -p NRestarts pi0-edge@failing) $(systemctl show -p ActiveState pi0-edge@failing)
journalctl --no-pager -o cat -u pi0-edge@arm-control -u pi0-edge-prepare
"""


def build_examples(dev, run, to, work):
    """The C example with what libpi0-edge-dev has, and the Rust example, both for the glibc that packages are built for."""
    for deb in (dev, run):
        subprocess.run(["dpkg-deb", "-x", deb, work / "dev"], check=True)
    libraries = work / "dev/usr/lib/x86_64-linux-gnu"
    subprocess.run([PROJECT / ".cache/jetson/python/bin/python", "-m", "ziglang", "cc", "-target", "x86_64-linux-gnu.2.28", "-std=c11",
                    "-O1", "-pthread", PROJECT / "examples/c/control_loop.c", "-I", work / "dev/usr/include", "-L", libraries,
                    "-lpi0_edge", "-o", to / "c-robot"], check=True)
    script = ". scripts/jetson/lib.sh; use_arch amd64; use_toolchain; cross_build --example control_loop; dirname $binary"
    built = subprocess.run(["bash", "-c", script], cwd=PROJECT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    subprocess.run(["cp", f"{built}/examples/control_loop", to / "rust-robot"], check=True)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    work = tmp_path_factory.mktemp("boot")
    pristine = subprocess.run([HERE / "make_rootfs.sh", "amd64"], check=True, capture_output=True, text=True).stdout.strip()
    root = work / "root"
    subprocess.run(["cp", "-a", pristine, root], check=True)
    debs = {deb.name.split("_")[0]: deb for deb in (PROJECT / "target/jetson/deb").glob("*_amd64.deb")}
    assert len(debs) == 3, "run scripts/jetson.sh build and deb, both with --arch amd64, first"
    build_examples(debs.pop("libpi0-edge-dev"), debs["pi0-edge"], root / "usr/local/bin", work)
    debs = sorted(debs.values())
    for deb in debs:
        subprocess.run(["cp", deb, root / "tmp"], check=True)
    subprocess.run(["chroot", root, "dpkg", "-i", *(f"/tmp/{deb.name}" for deb in debs)], check=True, capture_output=True)
    subprocess.run(["cp", "-rL", PROJECT / "models/pi0-tiny", root / "var/lib/pi0-edge/bundles"], check=True)
    for name, text in (("arm-control", CONTROL), ("failing", "#!/bin/sh\nexit 1\n")):
        (root / "usr/local/bin" / name).write_text(text)
        (root / "usr/local/bin" / name).chmod(0o755)
    for name in EXAMPLES:
        settings = "BUNDLE=/var/lib/pi0-edge/bundles/pi0-tiny\nSECONDS=1000\n"
        (root / f"etc/pi0-edge/{name}.env").write_text(settings)
    (root / "etc/pi0-edge/arm-control.env").write_text("GREETING=hello\n")
    (work / "script").write_text(SCRIPT)
    result = subprocess.run([HERE / "boot.sh", root, work / "script"], capture_output=True, text=True)
    assert (root / "var/log/private/pi0-edge/arm-control/post-mortem").read_text() == "kept"
    subprocess.run(["rm", "-rf", root], check=True)
    return result.stdout + result.stderr


def test_the_program_gets_what_the_unit_promises(report):
    for line in ("started", "LimitMEMLOCK=infinity", "LimitRTPRIO=99", "WatchdogUSec=5s"):
        assert f"{line}\n" in report, report
    assert "control: greeting hello\ncontrol: no root\n" in report
    assert "control: cores 1" in report and "control: pinned to 0\n" in report
    assert "control: Read-only file system\n" in report


@pytest.mark.parametrize("robot", EXAMPLES)
def test_the_examples_are_services(report, robot):
    """Started means READY=1 was said; the watchdog, of five seconds, is fed by chunks alone."""
    assert f"{robot}: started\n" in report, report
    assert re.search(rf"^{robot}: [1-9]\d* chunks published, 0 rejected$", report, re.MULTILINE), report
    restarts = 1 if robot == "c-robot" else 0
    assert f"{robot}: active, {restarts} restarts\n" in report, report
    assert f"{robot}: success\n" in report, report


def test_bundles_are_prepared_first(report):
    assert report.index("PARITY: the bundle computes what the reference policy computes") < report.index("greeting")
    assert "prepare: pi0-tiny: ready (PARITY)\n" in report and "\nactive\n" in report


def test_a_hanging_program_is_started_again(report):
    assert "control: hanging\n" in report and "NRestarts=1\n" in report
    assert report.count("control: greeting") >= 2


def test_a_program_that_keeps_failing_stays_down(report):
    assert "failing NRestarts=3 ActiveState=failed\n" in report, report


def test_a_missing_program_is_refused(report):
    assert "missing: refused\n" in report
