"""The real packages in a real arm64 root file system, dressed as Linux_for_Tegra/rootfs, under emulation.

Opt-in, for it takes root, a network and minutes: PI0_EDGE_TEST_ROOTFS=bookworm (or bullseye, whose glibc is JetPack
5's, or both: bookworm,bullseye), after `jetson.sh setup`, `build` and `deb`."""
import os
import re
import subprocess

import pytest
from conftest import JETSON, PROJECT

HERE = PROJECT / "scripts/tests_jetson"
SUITES = [suite for suite in os.environ.get("PI0_EDGE_TEST_ROOTFS", "").split(",") if suite]
pytestmark = pytest.mark.skipif(not SUITES, reason="opt-in: PI0_EDGE_TEST_ROOTFS")
BUNDLE = "/var/lib/pi0-edge/bundles/pi0-tiny"


@pytest.fixture(params=SUITES or ["none"], scope="module")
def pristine(request):
    result = subprocess.run([HERE / "make_rootfs.sh", "arm64", request.param], check=True, capture_output=True, text=True)
    return result.stdout.strip()


@pytest.fixture
def l4t(pristine, tmp_path):
    tree = tmp_path / "Linux_for_Tegra"
    tree.mkdir()
    subprocess.run(["cp", "-a", pristine, tree / "rootfs"], check=True)
    (tree / "rootfs/etc/nv_tegra_release").write_text(
        "# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic, EABI: aarch64, DATE: Mon Jan  1 00:00:00 UTC 2026\n")
    yield tree
    subprocess.run(["rm", "-rf", tree], check=True)


def apply_binaries(tree, text):
    (tree / "apply_binaries.sh").write_text("#!/bin/sh\n" + text)
    (tree / "apply_binaries.sh").chmod(0o755)


def inside(tree, *command, ok=True):
    result = subprocess.run([HERE / "in_rootfs.sh", tree / "rootfs", *command], capture_output=True, text=True)
    assert (result.returncode == 0) == ok, result.stdout + result.stderr
    return result.stdout


def install(tree, *options):
    result = subprocess.run([JETSON, "rootfs", tree, *options], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stderr


def test_installed_by_chroot_it_runs(l4t):
    apply_binaries(l4t, "echo no options; exit 1\n")
    install(l4t, "--bundle", PROJECT / "models/pi0-tiny")
    assert inside(l4t, "uname", "-m") == "aarch64\n"
    assert inside(l4t, "dpkg", "--audit") == "" and inside(l4t, "dpkg", "--verify", "pi0-edge") == ""
    assert "PARITY" in inside(l4t, "pi0-edge", "check", BUNDLE)
    assert "pi0-tiny: ready (PARITY)\n" in inside(l4t, "/usr/lib/pi0-edge/prepare")
    assert "ready since" in inside(l4t, "/usr/lib/pi0-edge/prepare")
    # A second time replaces the first; removed, it leaves what is the user's.
    install(l4t)
    inside(l4t, "dpkg", "--purge", "pi0-edge", "pi0-edge-onnxruntime")
    assert not (l4t / "rootfs/usr/bin/pi0-edge").exists() and (l4t / f"rootfs{BUNDLE}/manifest.json").exists()


def test_installed_by_extra_pkg_it_runs(l4t):
    """An apply_binaries.sh that does with --extra-pkg what NVIDIA's does: copy, and dpkg inside the root file system."""
    apply_binaries(l4t, f"""
case $* in *--help*) echo '    --extra-pkg PATH'; exit 1 ;; esac
cd "$(dirname "$0")"
mkdir -p rootfs/opt/nvidia/extra-packages
debs=
while [ $# -gt 0 ]; do
    case $1 in --extra-pkg) cp "$2" rootfs/opt/nvidia/extra-packages && debs="$debs /opt/nvidia/extra-packages/${{2##*/}}" ;; esac
    shift
done
exec {HERE}/in_rootfs.sh rootfs dpkg -i $debs
""")
    install(l4t)
    assert re.fullmatch(r"pi0-edge \d+\.\d+\.\d+\n", inside(l4t, "pi0-edge", "--version"))
    assert inside(l4t, "dpkg", "--audit") == ""
