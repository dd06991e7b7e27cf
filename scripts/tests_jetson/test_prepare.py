"""The first-boot step: engines and parity, once per bundle, program and system release."""
import pytest
from conftest import PROJECT

PREPARE = PROJECT / "packaging/prepare"


@pytest.fixture
def device(machine):
    """A device with one bundle; its pi0-edge logs."""
    bundle = machine.root / "state/bundles/pick"
    bundle.mkdir(parents=True)
    (bundle / "manifest.json").write_text("{}")
    machine.program("pi0-edge", f"""
case $* in
--version) cat {machine.root}/version ;;
check*) cat {machine.root}/verdict; test ! -e {machine.root}/broken ;;
esac
""")
    (machine.root / "version").write_text("0.1.0\n")
    (machine.root / "verdict").write_text("integrity: 3 files verified\n\nPARITY: as the reference: to 1e-5\n")
    machine.environment = {"PI0_EDGE_STATE": str(machine.root / "state"),
                           "PI0_EDGE_RELEASE_FILE": str(machine.root / "release"),
                           "PI0_EDGE_DEVICE_ENV": str(machine.root / "device.env")}
    return machine


def work(device):
    """What was asked of pi0-edge since the last call, apart from questions."""
    calls = [c for c in device.calls("pi0-edge") if c != "[--version]"]
    (device.root / "log").unlink()
    return calls


def test_once_and_again_only_when_something_changed(device):
    bundle = device.root / "state/bundles/pick"
    assert "PARITY: as the reference: to 1e-5\nprepare: pick: ready (PARITY)\n" in device.run(PREPARE).stdout
    assert work(device) == [f"[check] [{bundle}/] [--provider] [cpu]"]
    assert "ready since" in device.run(PREPARE).stdout
    assert work(device) == []
    for path, text in (("version", "0.2.0"), ("release", "# R36"), ("state/bundles/pick/manifest.json", "{ }")):
        (device.root / path).write_text(text)
        device.run(PREPARE)
        assert work(device) == [f"[check] [{bundle}/] [--provider] [cpu]"], path
        device.run(PREPARE)
        assert work(device) == [], path


def test_what_was_shown_is_said_at_every_boot(device):
    (device.root / "verdict").write_text("SELF-CONSISTENCY ONLY: it computes\n")
    assert "prepare: pick: ready (SELF-CONSISTENCY ONLY)\n" in device.run(PREPARE).stdout
    assert device.run(PREPARE).stdout.endswith(" (SELF-CONSISTENCY ONLY)\n")


def test_the_device_names_its_onnxruntime(device):
    device.program("pi0-edge", 'echo "uses ${ORT_DYLIB_PATH:-nothing} and $XDG_CACHE_HOME"\n')
    device.run(PREPARE)
    (device.root / "device.env").write_text(f"ORT_DYLIB_PATH={device.root}/version\n")
    assert f"uses {device.root}/version and /var/cache" in device.run(PREPARE, ORT_DYLIB_PATH="").stdout


def test_engines_are_built_before_the_check(device):
    bundle = device.root / "state/bundles/pick"
    device.run(PREPARE)
    assert work(device) == [f"[check] [{bundle}/] [--provider] [cpu]"]
    (device.root / "device.env").write_text("PI0_EDGE_PROVIDER=tensorrt\n")
    device.run(PREPARE)
    assert work(device) == [f"[engines] [build] [{bundle}/]", f"[check] [{bundle}/] [--provider] [tensorrt]"]


def test_a_failing_bundle_fails_the_unit_and_is_tried_again(device):
    other = device.root / "state/bundles/place"
    other.mkdir()
    (other / "manifest.json").write_text("{}")
    (device.root / "broken").touch()
    (device.root / "verdict").write_text("FAIL: another chunk\n")
    said = device.run(PREPARE, ok=False).stdout
    assert "FAIL: another chunk\n" in said and "pick: FAILED, do not run it on a robot" in said
    assert len(work(device)) == 2  # the second bundle is looked at all the same
    (device.root / "broken").unlink()
    device.run(PREPARE)
    assert len(work(device)) == 2


def test_without_bundles(device):
    (device.root / "state/bundles/pick/manifest.json").unlink()
    assert device.run(PREPARE).stdout == ""
