"""What every command has in common: help, wrong use, and --dry-run without a trace."""
import pytest
from conftest import JETSON, PROJECT

COMMANDS = ("setup", "build", "test", "deb", "deploy", "rootfs", "image", "flash", "boards")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_the_command(machine, command):
    if command != "boards":
        assert f"scripts/jetson.sh {command}" in machine.run(JETSON, command, "--help").stdout
    assert f"\n  {command}" in machine.run(JETSON, "--help").stdout


def test_wrong_use_is_exit_2(machine):
    for words in (["nonsense"], ["build", "--nonsense"], ["setup", "x"], ["deb", "--arch", "mips"], ["deploy"],
                  ["rootfs"], ["flash"]):
        result = machine.run(JETSON, *words, ok=False)
        assert result.returncode == 2, words
        assert result.stderr


def test_boards_lists_every_row(machine):
    rows = [line.split()[0] for line in (PROJECT / "scripts/jetson/boards.tsv").read_text().splitlines()
            if not line.startswith("#")]
    listed = machine.run(JETSON, "boards").stdout
    assert all(f"\n{row} " in listed for row in rows)


def test_dry_runs_leave_no_trace(machine, project):
    for program in ("cargo", "cargo-zigbuild", "pip", "ssh", "scp", "rsync", "dpkg-deb"):
        machine.program(program)
    golden = project / "models/pi0-tiny/golden/one"
    golden.mkdir(parents=True)
    (golden / "observation.json").touch()
    (project / "models/pi0-tiny/manifest.json").touch()
    (project / "target/jetson/deb").mkdir()
    for name in ("pi0-edge_0.1.0_arm64.deb", "pi0-edge-onnxruntime_1.31.1-1_arm64.deb"):
        (project / "target/jetson/deb" / name).touch()
    before = sorted(project.rglob("*"))
    script = project / "scripts/jetson.sh"
    assert "cargo-zigbuild zigbuild" in machine.run(script, "build", "--dry-run").stdout
    assert "same_actions.py 1e-5" in machine.run(script, "test", "--dry-run").stdout
    machine.run(script, "setup", "--dry-run")
    machine.run(script, "deb", "--dry-run", SOURCE_DATE_EPOCH="1")
    assert "sudo apt-get install" in machine.run(script, "deploy", "robot@host", "--dry-run").stdout
    assert machine.log() == [] and sorted(project.rglob("*")) == before
