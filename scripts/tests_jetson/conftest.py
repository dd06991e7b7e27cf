"""Helpers of the Jetson script tests: programs that log how they were called, and a dummy BSP tree."""
import dataclasses
import os
import pathlib
import shutil
import subprocess

import pytest

PROJECT = pathlib.Path(__file__).resolve().parents[2]
JETSON = PROJECT / "scripts/jetson.sh"
LOGGER = """#!/bin/sh
printf '%s' "$(basename "$0")" >>"$LOG"
for a; do printf ' [%s]' "$a" >>"$LOG"; done
printf '\\n' >>"$LOG"
"""


@dataclasses.dataclass
class Machine:
    """A place to run scripts in: its own PATH entries come first, and what they log is kept."""

    root: pathlib.Path
    environment: dict = dataclasses.field(default_factory=dict)

    @property
    def bin(self):
        return self.root / "bin"

    def program(self, name, body="", where=None):
        """Makes a program that logs its arguments and then runs `body`."""
        path = (where or self.bin) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(LOGGER + body)
        path.chmod(0o755)
        return path

    def run(self, *command, typed="", ok=True, **environment):
        """Runs a command with `typed` on its standard input; `ok` says whether it should succeed."""
        env = os.environ | {"PATH": f"{self.bin}:{os.environ['PATH']}", "LOG": str(self.root / "log")}
        env |= self.environment | environment
        result = subprocess.run(list(map(str, command)), input=typed, text=True, capture_output=True, env=env)
        assert (result.returncode == 0) == ok, result.stdout + result.stderr
        return result

    def log(self):
        path = self.root / "log"
        return path.read_text().splitlines() if path.exists() else []

    def calls(self, name):
        """The log's lines of one program, without its name."""
        return [line[len(name) + 1:] for line in self.log() if line.split(" ")[0] == name]


@pytest.fixture
def machine(tmp_path):
    (tmp_path / "bin").mkdir()
    return Machine(tmp_path)


@pytest.fixture
def project(tmp_path):
    """A copy of the project in which build and setup seem to have run: programs of this machine stand in."""
    copy = tmp_path / "project"
    copy.mkdir()
    for name in ("Cargo.toml", "Cargo.lock"):
        shutil.copy(PROJECT / name, copy)
    for name in ("src", "crates", "benches", "tests", "packaging", "docs", "examples", "scripts/jetson"):
        if (PROJECT / name).exists():
            shutil.copytree(PROJECT / name, copy / name)
    shutil.copy(JETSON, copy / "scripts")
    for name in ("bench_device.sh", "install.sh"):
        shutil.copy(PROJECT / "scripts" / name, copy / "scripts")
    fetch = copy / "scripts/fetch_onnxruntime.sh"
    fetch.write_text('#!/bin/sh\nmkdir -p "$1"\ncp /bin/true "$1/libonnxruntime.so.1"\necho "1.2.3 platform" >"$1/VERSION"\n')
    fetch.chmod(0o755)
    # The templates' own tests are the exporter's.
    (copy / "target/templates/pi0-fp32").mkdir(parents=True)
    (copy / "target/templates/pi0-fp32/manifest.json").write_text("{}")
    (copy / "scripts/jetson/templates.sh").write_text("#!/bin/sh\n")
    binary = copy / "target/jetson/x86_64-unknown-linux-gnu/release/pi0-edge"
    binary.parent.mkdir(parents=True)
    shutil.copy("/bin/true", binary)
    soname = ["-shared", "-Wl,-soname,libpi0_edge.so.0.1"]
    subprocess.run(["cc", *soname, "-x", "c", "/dev/null", "-o", binary.with_name("libpi0_edge.so")], check=True)
    binary.with_name("libpi0_edge.a").write_bytes(b"!<arch>\n")
    for name in ("man/man1/pi0-edge.1", "bash-completion/completions/pi0-edge", "zsh/site-functions/_pi0-edge",
                 "fish/vendor_completions.d/pi0-edge.fish"):
        file = binary.with_name("share") / name
        file.parent.mkdir(parents=True)
        file.write_text(name)
    return copy
