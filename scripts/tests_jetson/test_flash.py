"""`image` and `flash` on a dummy BSP whose tools log their arguments. This proves which commands would be run on which
board and release; nothing here was ever flashed."""
import os

import pytest
from bsp import Bsp
from conftest import JETSON

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="the root file system must belong to root")

EXTERNAL = "[--external-device] [nvme0n1p1] [-c] [tools/kernel_flash/{}]"
NVME = EXTERNAL.format("flash_l4t_t234_nvme.xml")
BOOT = "[-p] [-c bootloader/generic/cfg/flash_t234_qspi.xml]"
END = "[--showlogs] [--network] [usb0]"


def flash(bsp, board, *options, plugged=(), typed=None, ok=True):
    return bsp.machine.run(JETSON, "flash", bsp.dir, board, *options, ok=ok,
                           typed=f"{board if typed is None else typed}\n", PI0_EDGE_USB_DEVICES=str(bsp.usb(*plugged)))


@pytest.mark.parametrize("release, board, usb, options, expected", [
    ("35.6.1", "orin-nx-16gb", "7323", [], EXTERNAL.format("flash_l4t_external.xml") +
     " [-p] [-c bootloader/t186ref/cfg/flash_t234_qspi.xml] " + END + " [jetson-orin-nano-devkit] [internal]"),
    ("36.2.0", "orin-nano-8gb", "7523", [], EXTERNAL.format("flash_l4t_external.xml") + " " + BOOT + " " + END +
     " [jetson-orin-nano-devkit] [internal]"),
    ("36.4.3", "orin-nano-devkit", "7523", ["--config", "jetson-orin-nano-devkit-super"],
     f"{NVME} {BOOT} {END} [jetson-orin-nano-devkit-super] [internal]"),
    ("39.2.0", "orin-nx-8gb", "7423", [], f"{NVME} {BOOT} {END} [jetson-orin-nano-devkit] [internal]"),
    ("36.4.3", "agx-orin-64gb", "7023", [], f"{END} [jetson-agx-orin-devkit] [internal]"),
    ("36.4.3", "agx-orin-32gb", "7223", ["--nvme"], f"{NVME} {END} [jetson-agx-orin-devkit] [external]"),
    ("36.4.3", "agx-orin-industrial", "7023", [], f"{END} [jetson-agx-orin-devkit-industrial] [internal]"),
    ("38.4.0", "agx-thor", "7026", [], f"{END} [jetson-agx-thor-devkit] [internal]"),
    ("39.2.0", "agx-thor", "7026", ["--nvme"], f"{END} [jetson-agx-thor-devkit] [internal]"),
    ("36.4.3", "orin-nano-4gb", "7623", ["--layout", "mine.xml", "--qspi-layout", "boot.xml"],
     f"[--external-device] [nvme0n1p1] [-c] [mine.xml] [-p] [-c boot.xml] {END} [jetson-orin-nano-devkit] [internal]"),
])
def test_flash_command(machine, release, board, usb, options, expected):
    bsp = Bsp(machine, release)
    flash(bsp, board, *options, plugged=["0002", usb])
    assert machine.calls("l4t_initrd_flash.sh") == [expected]


def test_nothing_happens_until_the_board_is_typed(machine):
    bsp = Bsp(machine)
    for typed in ("", "yes", "orin-nx-8gb"):
        result = flash(bsp, "orin-nx-16gb", plugged=["7323"] if not typed else [], typed=typed, ok=False)
        assert "nothing was done" in result.stderr
        assert "erases the Jetson Orin NX 16GB" in result.stderr
    assert machine.log() == []


def test_dry_run_only_prints(machine):
    bsp = Bsp(machine)
    for command in ("flash", "image"):
        result = machine.run(JETSON, "--dry-run", command, bsp.dir, "orin-nx-16gb",
                             PI0_EDGE_USB_DEVICES=str(bsp.usb()))
        assert "l4t_initrd_flash.sh" in result.stdout
        assert "-p '-c bootloader/generic/cfg/flash_t234_qspi.xml'" in result.stdout
    assert machine.log() == []


@pytest.mark.parametrize("plugged, problem", [
    ([], "no board is in recovery mode"),
    (["7020"], "no board is in recovery mode"),  # a Jetson that runs its system
    (["7323", "7323"], "2 boards are in recovery mode"),
    (["7523"], "is 0955:7523; Jetson Orin NX 16GB would be 0955:7323"),
])
def test_the_right_board_must_be_connected(machine, plugged, problem):
    assert problem in flash(Bsp(machine), "orin-nx-16gb", plugged=plugged, ok=False).stderr
    assert machine.log() == []


@pytest.mark.parametrize("release, board, problem", [
    ("38.4.0", "orin-nx-16gb", "Jetson Linux 38 does not support Jetson Orin NX 16GB; it needs 35 or 36 or 39"),
    ("36.4.3", "agx-thor", "does not support Jetson AGX Thor (T5000); it needs 38 or 39"),
    ("36.4.3", "nano", "no board called nano"),
])
def test_board_and_release_must_fit(machine, release, board, problem):
    assert problem in flash(Bsp(machine, release), board, ok=False).stderr


def test_a_missing_layout_is_named(machine):
    bsp = Bsp(machine)
    (bsp.dir / "bootloader/generic/cfg/flash_t234_qspi.xml").unlink()
    result = flash(bsp, "orin-nx-16gb", plugged=["7323"], ok=False)
    assert "none of the QSPI layouts known for it: bootloader/generic/cfg/flash_t234_qspi.xml" in result.stderr
    assert machine.log() == []


def test_the_root_file_system_must_have_the_package(machine):
    for command in ("flash", "image"):
        result = machine.run(JETSON, command, Bsp(machine, installed=False).dir, "orin-nx-16gb", ok=False)
        assert "run scripts/jetson.sh rootfs" in result.stderr
    assert machine.log() == []


def test_a_missing_user_is_pointed_out(machine):
    bsp = Bsp(machine, user=False)
    assert "l4t_create_default_user.sh" in flash(bsp, "agx-orin-64gb", plugged=["7023"]).stderr


@pytest.mark.parametrize("release, board, options, environment, identity, expected", [
    ("36.4.3", "orin-nx-16gb", [], {}, ["BOARDID=3767", "BOARDSKU=0000"],
     f"[--no-flash] [--massflash] [5] {NVME} {BOOT} {END} [jetson-orin-nano-devkit] [internal]"),
    ("36.4.3", "agx-orin-32gb", ["--count", "2"], {}, ["BOARDID=3701", "BOARDREV=A.0", "BOARDSKU=0004", "FAB=TS4"],
     f"[--no-flash] [--massflash] [2] {END} [jetson-agx-orin-devkit] [internal]"),
    ("38.4.0", "agx-thor", [], {"FAB": "400", "BOARDREV": "G.5", "CHIP_SKU": "00:00:00:A0"},
     ["BOARDID=3834", "BOARDREV=G.5", "BOARDSKU=0008", "CHIP_SKU=00:00:00:A0", "FAB=400"],
     f"[--no-flash] [--massflash] [5] {END} [jetson-agx-thor-devkit] [internal]"),
])
def test_image_command(machine, release, board, options, environment, identity, expected):
    bsp = Bsp(machine, release)
    result = machine.run(JETSON, "image", bsp.dir, board, *options, **environment)
    assert machine.calls("l4t_initrd_flash.sh") == [expected]
    assert [line for line in machine.log() if "=" in line] == identity
    assert f"{bsp.dir}/mfi_" in result.stderr and "--flash-only" in result.stderr
    assert ("--network usb0 jetson-agx-thor-devkit" in result.stderr) == (release == "38.4.0")


def test_image_for_a_carrier_board_of_ones_own(machine):
    bsp = Bsp(machine)
    result = machine.run(JETSON, "image", bsp.dir, "orin-nx-16gb", "--config", "my-carrier", ok=False)
    assert "has no my-carrier.conf" in result.stderr
    bsp.file("my-carrier.conf")
    machine.run(JETSON, "image", bsp.dir, "orin-nx-16gb", "--config", "my-carrier")
    assert machine.calls("l4t_initrd_flash.sh")[0].endswith("[my-carrier] [internal]")


def test_image_fails_when_the_tools_leave_no_package(machine):
    bsp = Bsp(machine)
    machine.program("l4t_initrd_flash.sh", "", bsp.dir / "tools/kernel_flash")
    assert "yet there is no" in machine.run(JETSON, "image", bsp.dir, "agx-orin-64gb", ok=False).stderr
