"""`jetson.sh deb`: what is in the packages, and that the same source gives the same bytes."""
import hashlib
import os
import platform
import shutil
import subprocess

import pytest
from conftest import PROJECT

pytestmark = [
    pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="this machine's own programs stand in for the build"),
]


def build(machine, project, **environment):
    environment.setdefault("SOURCE_DATE_EPOCH", "1700000000")
    machine.run(project / "scripts/jetson.sh", "deb", "--arch", "amd64", **environment)
    return {deb.name.split("_")[0]: deb for deb in (project / "target/jetson/deb").glob("*.deb")}


def field(deb, name):
    return subprocess.run(["dpkg-deb", "-f", deb, name], check=True, capture_output=True, text=True).stdout.strip()


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def unpacked(machine, project):
    debs = build(machine, project)
    roots = {}
    for name, deb in debs.items():
        roots[name] = machine.root / "unpacked" / name
        roots[name].parent.mkdir(exist_ok=True)
        subprocess.run(["dpkg-deb", "-R", deb, roots[name]], check=True)
    return debs, roots


def test_two_builds_give_the_same_bytes(machine, project):
    first = {name: sha256(deb) for name, deb in build(machine, project).items()}
    for path in (project / "packaging").rglob("*"):
        os.utime(path, (1, 1))
    old = os.umask(0o077)
    try:
        second = {name: sha256(deb) for name, deb in build(machine, project, TZ="Asia/Tokyo", LC_ALL="C").items()}
    finally:
        os.umask(old)
    assert first == second
    assert set(first) == {path.name for path in (PROJECT / "packaging/deb").iterdir()}
    other = {name: sha256(deb) for name, deb in build(machine, project, SOURCE_DATE_EPOCH="1800000000").items()}
    assert all(other[name] != first[name] for name in first)


def test_fields(unpacked):
    debs, _ = unpacked
    deb = debs["pi0-edge"]
    version = next(l for l in (PROJECT / "Cargo.toml").read_text().splitlines() if l.startswith("version"))
    assert field(deb, "Version") == version.split('"')[1]
    assert field(deb, "Architecture") == "amd64"
    assert field(deb, "Depends").startswith("libc6 (>= 2.")
    assert int(field(deb, "Installed-Size")) > 30
    assert field(debs["pi0-edge-onnxruntime"], "Version") == "1.2.3-1"
    assert "@" not in field(deb, "Description") + field(deb, "Depends") + field(deb, "Suggests")


def test_contents(unpacked):
    _, roots = unpacked
    root = roots["pi0-edge"]
    assert (root / "usr/bin/pi0-edge").stat().st_mode & 0o777 == 0o755
    for program in ("prepare", "bench_device.sh"):
        assert (root / "usr/lib/pi0-edge" / program).stat().st_mode & 0o777 == 0o755
    for path in ("usr/lib/systemd/system/pi0-edge@.service", "etc/security/limits.d/50-pi0-edge.conf",
                 "usr/share/man/man1/pi0-edge.1.gz", "usr/share/bash-completion/completions/pi0-edge",
                 "usr/share/zsh/vendor-completions/_pi0-edge", "usr/share/fish/vendor_completions.d/pi0-edge.fish",
                 "usr/share/pi0-edge/templates/pi0-fp32/manifest.json", "usr/share/doc/pi0-edge/copyright", "usr/share/doc/pi0-edge/third-party-notices.gz"):
        assert (root / path).stat().st_mode & 0o777 == 0o644, path
    assert (root / "var/lib/pi0-edge/bundles").is_dir()
    assert (roots["pi0-edge-onnxruntime"] / "usr/lib/pi0-edge/libonnxruntime.so.1").is_file()


def test_programs_are_built_with_one_package_and_run_with_the_other(unpacked):
    debs, roots = unpacked
    run, dev = (roots[name] / "usr/lib/x86_64-linux-gnu" for name in ("pi0-edge", "libpi0-edge-dev"))
    version = field(debs["pi0-edge"], "Version")
    assert os.readlink(run / "libpi0_edge.so.0.1") == f"libpi0_edge.so.{version}"
    assert os.readlink(dev / "libpi0_edge.so") == "libpi0_edge.so.0.1"
    assert not (run / "libpi0_edge.so").exists() and not list(dev.glob("libpi0_edge.so.*"))
    assert field(debs["libpi0-edge-dev"], "Depends") == f"pi0-edge (= {version}), libc6-dev"
    include = roots["libpi0-edge-dev"] / "usr/include"
    assert {path.name for path in include.iterdir()} == {"pi0_edge.h", "pi0_edge.hpp"}
    assert "\nprefix=/usr\n" in "\n" + (dev / "pkgconfig/pi0_edge.pc").read_text()
    assert f"{version}" in (dev / "cmake/pi0_edge/pi0_edge-config-version.cmake").read_text()


def test_nothing_runs_at_installation(unpacked):
    """No maintainer script, and of triggers only the one that every shared library has."""
    _, roots = unpacked
    for root in roots.values():
        assert {path.name for path in (root / "DEBIAN").iterdir()} <= {"control", "md5sums", "conffiles", "triggers"}
    assert (roots["pi0-edge"] / "DEBIAN/conffiles").read_text() == "/etc/security/limits.d/50-pi0-edge.conf\n"
    assert (roots["pi0-edge"] / "DEBIAN/triggers").read_text() == "activate-noawait ldconfig\n"
    assert not list(roots["pi0-edge"].rglob("*.wants"))


def test_checksums_cover_every_file(unpacked):
    _, roots = unpacked
    for root in roots.values():
        subprocess.run(["md5sum", "--quiet", "-c", "DEBIAN/md5sums"], cwd=root, check=True)
        listed = {line.split("  ")[1] for line in (root / "DEBIAN/md5sums").read_text().splitlines()}
        files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and not path.is_symlink()}
        assert listed == {name for name in files if not name.startswith("DEBIAN/")}


def test_third_party_notices_name_linked_libraries_only(unpacked):
    _, roots = unpacked
    import gzip
    text = gzip.decompress((roots["pi0-edge"] / "usr/share/doc/pi0-edge/third-party-notices.gz").read_bytes()).decode()
    assert "\nserde_json " in text and "Permission is hereby granted" in text
    assert "\nproptest " not in text


def test_another_architecture_is_refused(machine, project):
    theirs = project / "target/jetson/aarch64-unknown-linux-gnu/release"
    shutil.copytree(project / "target/jetson/x86_64-unknown-linux-gnu/release", theirs)
    result = machine.run(project / "scripts/jetson.sh", "deb", ok=False, SOURCE_DATE_EPOCH="1")
    assert "is not for arm64" in result.stderr


def test_without_a_build(machine, project):
    result = machine.run(project / "scripts/jetson.sh", "deb", ok=False, SOURCE_DATE_EPOCH="1")
    assert "run scripts/jetson.sh build --arch arm64 first" in result.stderr
