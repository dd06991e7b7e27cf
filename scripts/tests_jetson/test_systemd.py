"""The units: systemd itself reads them, and the lines that a robot depends on are there."""
import re
import shutil
import subprocess

import pytest
from conftest import PROJECT

UNITS = PROJECT / "packaging/systemd"


def settings(name):
    text = (UNITS / name).read_text()
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.M))


def test_a_control_program_gets_real_time():
    unit = settings("pi0-edge@.service")
    assert unit["Type"] == "notify" and float(unit["WatchdogSec"]) > 0 and unit["Restart"] == "on-failure"
    assert unit["LimitRTPRIO"] == "99" and unit["LimitMEMLOCK"] == "infinity" and unit["CPUAffinity"]
    # These would take from the program what it needs.
    assert not {"RestrictRealtime", "PrivateDevices", "ProtectClock", "MemoryDenyWriteExecute"} & set(unit)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_accepts_the_units(tmp_path):
    """Verified in a root of their own, where the programs exist that they start."""
    root = tmp_path / "root"
    units = root / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    for unit in UNITS.iterdir():
        shutil.copy(unit, units)
    for target in ("sysinit", "basic", "shutdown", "multi-user", "network", "network-online", "local-fs"):
        (units / f"{target}.target").write_text("[Unit]\nDescription=stand-in\n")
    for program in ("usr/local/bin/arm-control", "usr/lib/pi0-edge/prepare", "usr/bin/pi0-edge"):
        (root / program).parent.mkdir(parents=True, exist_ok=True)
        (root / program).write_text("#!/bin/sh\n")
        (root / program).chmod(0o755)
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", f"--root={root}", "pi0-edge@arm-control.service",
         "pi0-edge-prepare.service", "pi0-edge-serve@arm.service"], capture_output=True, text=True)
    if "--root is not supported" in result.stderr:
        pytest.skip("this systemd-analyze cannot verify in a root of its own")
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
@pytest.mark.parametrize("unit", ["pi0-edge@.service", "pi0-edge-serve@.service"])
def test_exposure(unit):
    result = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=50", "--no-pager",
                             UNITS / unit], capture_output=True, text=True)
    if "unrecognized option" in result.stderr:
        pytest.skip("this systemd-analyze cannot judge files")
    assert result.returncode == 0, result.stdout + result.stderr
