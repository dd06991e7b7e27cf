"""`rootfs` on a dummy BSP: by --extra-pkg where the BSP has it, else by chroot; and what it refuses."""
import os
import shutil
import subprocess

import pytest
from bsp import Bsp
from conftest import JETSON, PROJECT

pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="the root file system must belong to root"),
    pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb"),
]


def make_deb(directory, name, version, depends):
    root = directory / name
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: arm64\nMaintainer: nobody <nobody@example.invalid>\n"
        f"Depends: {depends}\nDescription: stand-in\n")
    deb = directory / f"{name}_{version}_arm64.deb"
    subprocess.run(["dpkg-deb", "-b", root, deb], check=True, capture_output=True)
    shutil.rmtree(root)
    return deb


@pytest.fixture
def install(machine, project):
    """Runs `rootfs` of a project that has two small arm64 packages, with a chroot that only logs."""
    debs = project / "target/jetson/deb"
    debs.mkdir(parents=True, exist_ok=True)
    make_deb(debs, "pi0-edge", "0.1.0", "libc6 (>= 2.28)")
    make_deb(debs, "pi0-edge-onnxruntime", "1.31.1-1", "libc6 (>= 2.28), libgcc-s1, libstdc++6 (>= 6)")
    machine.program("chroot")
    return lambda bsp, *options, ok=True: machine.run(project / "scripts/jetson.sh", "rootfs", bsp.dir, *options, ok=ok)


@pytest.mark.parametrize("release, options, openrm", [
    ("36.4.3", [], ""), ("38.4.0", [], "[--openrm] "), ("39.2.0", [], ""), ("39.2.0", ["--openrm"], "[--openrm] "),
])
def test_by_extra_pkg(machine, project, install, release, options, openrm):
    install(Bsp(machine, release, extra_pkg=True), *options)
    debs = project / "target/jetson/deb"
    assert machine.calls("apply_binaries.sh") == [
        "[--help]",
        f"{openrm}[--extra-pkg] [{debs}/pi0-edge_0.1.0_arm64.deb] "
        f"[--extra-pkg] [{debs}/pi0-edge-onnxruntime_1.31.1-1_arm64.deb]"]
    assert not any("dpkg" in call for call in machine.calls("chroot"))


def test_by_chroot(machine, install):
    bsp = Bsp(machine)
    install(bsp)
    assert machine.calls("apply_binaries.sh") == ["[--help]"]
    inside = "/var/cache/pi0-edge/packages"
    assert [call for call in machine.calls("chroot") if "/bin/true" not in call] == [
        f"[{bsp.rootfs}] [dpkg] [-i] [{inside}/pi0-edge_0.1.0_arm64.deb] "
        f"[{inside}/pi0-edge-onnxruntime_1.31.1-1_arm64.deb]",
        f"[{bsp.rootfs}] [pi0-edge] [--version]"]
    assert not (bsp.rootfs / inside[1:]).exists()


def test_bundles_and_first_boot(machine, install):
    bsp = Bsp(machine)
    install(bsp, "--bundle", PROJECT / "models/pi0-tiny", "--without-onnxruntime")
    assert (bsp.rootfs / "var/lib/pi0-edge/bundles/pi0-tiny/manifest.json").is_file()
    wants = bsp.rootfs / "etc/systemd/system/multi-user.target.wants"
    assert os.readlink(wants / "pi0-edge-prepare.service") == "/usr/lib/systemd/system/pi0-edge-prepare.service"
    assert not any("onnxruntime" in line for line in machine.log())
    assert not list(wants.glob("pi0-edge@*"))


def test_dry_run_changes_nothing(machine, project, install):
    bsp = Bsp(machine, installed=False)
    before = sorted(bsp.dir.rglob("*"))
    result = machine.run(project / "scripts/jetson.sh", "--dry-run", "rootfs", bsp.dir)
    assert "dpkg -i" in result.stdout
    assert sorted(bsp.dir.rglob("*")) == before and machine.calls("chroot") == []


@pytest.mark.parametrize("spoil, problem", [
    (lambda bsp: (bsp.dir / "apply_binaries.sh").unlink(), "not a Linux_for_Tegra directory"),
    (lambda bsp: (bsp.rootfs / "etc/passwd").unlink(), "unpack NVIDIA's sample root file system"),
    (lambda bsp: os.chown(bsp.rootfs / "etc/passwd", 1000, 1000), "does not belong to root"),
    (lambda bsp: (bsp.rootfs / "etc/nv_tegra_release").unlink(), "l4t_flash_prerequisites.sh"),
    (lambda bsp: bsp.file("rootfs/etc/nv_tegra_release", "nonsense\n"), "cannot read the release"),
    (lambda bsp: bsp.packages.update(libc6="2.27-3ubuntu1"), "has libc6 2.27-3ubuntu1; pi0-edge_0.1.0_arm64.deb needs 2.28"),
    (lambda bsp: bsp.packages.pop("libstdc++6"), "has no libstdc++6, which pi0-edge-onnxruntime_1.31.1-1_arm64.deb needs"),
])
def test_refusals(machine, install, spoil, problem):
    bsp = Bsp(machine)
    spoil(bsp)
    bsp.write_status()
    assert problem in install(bsp, ok=False).stderr
    assert machine.calls("chroot") == []


def test_without_packages(machine, project):
    assert "run scripts/jetson.sh deb --arch arm64 first" in machine.run(
        project / "scripts/jetson.sh", "rootfs", Bsp(machine).dir, ok=False).stderr


def test_a_bundle_must_be_one(machine, install):
    assert "is it a bundle?" in install(Bsp(machine), "--bundle", machine.root, ok=False).stderr
