"""`deploy` with an ssh that logs: what is copied and run where."""
import pytest


@pytest.fixture
def deploy(machine, project):
    machine.program("ssh", """
for command; do :; done
case $command in
*print-architecture) cat "$LOG.architecture" ;;
*'command -v rsync'*) test -e "$LOG.rsync" ;;
*nv_tegra_release*) echo '# R36 (release), REVISION: 4.3' ;;
esac
""")
    machine.program("scp")
    machine.program("rsync")
    debs = project / "target/jetson/deb"
    debs.mkdir()
    for arch in ("arm64", "amd64"):
        (debs / f"pi0-edge_0.1.0_{arch}.deb").touch()
        (debs / f"libpi0-edge-dev_0.1.0_{arch}.deb").touch()
        (debs / f"pi0-edge-onnxruntime_1.31.1-1_{arch}.deb").touch()
    (machine.root / "log.architecture").write_text("arm64\n")
    bundle = project / "pick bottle"
    bundle.mkdir()
    (bundle / "manifest.json").touch()

    def run(*options, ok=True):
        return machine.run(project / "scripts/jetson.sh", "deploy", "robot@host", *options, ok=ok)
    return run


def remote(machine):
    """The commands that were run on the other side."""
    return [line[line.rindex("[robot@host] [") + 14:-1] for line in machine.calls("ssh") if "[robot@host] [" in line]


def test_packages(machine, deploy):
    result = deploy()
    assert "host is arm64, # R36" in result.stderr
    assert [c for c in remote(machine) if "print-arch" not in c and "nv_tegra" not in c and "rsync" not in c] == [
        "mkdir -p .pi0-edge-packages",
        "sudo apt-get install --yes --reinstall --allow-downgrades ./.pi0-edge-packages/pi0-edge_0.1.0_arm64.deb "
        "./.pi0-edge-packages/pi0-edge-onnxruntime_1.31.1-1_arm64.deb",
        "rm -r .pi0-edge-packages",
        "pi0-edge --version",
        "pi0-edge doctor"]
    assert len(machine.calls("scp")) == 1 and machine.calls("scp")[0].endswith("[robot@host:.pi0-edge-packages/]")
    assert not any("systemctl" in c for c in remote(machine))


def test_the_robot_decides_the_architecture(machine, deploy):
    (machine.root / "log.architecture").write_text("amd64\n")
    deploy("--without-onnxruntime")
    assert "pi0-edge_0.1.0_amd64.deb" in machine.calls("scp")[0] and "onnxruntime" not in machine.calls("scp")[0]


@pytest.mark.parametrize("rsync", [True, False])
def test_bundle(machine, deploy, project, rsync):
    if rsync:
        (machine.root / "log.rsync").touch()
    deploy("--bundle", project / "pick bottle")
    place = "/var/lib/pi0-edge/bundles/pick bottle"
    assert remote(machine)[-1] == f"sudo /usr/lib/pi0-edge/prepare '{place}'"
    assert len(machine.calls("rsync")) == rsync and len(machine.calls("scp")) == 2 - rsync
    assert not rsync or "[--copy-dest=/var/lib/pi0-edge/bundles/pick bottle/]" in machine.calls("rsync")[0]


def test_a_bundle_that_is_in_use_is_replaced_and_never_written_to(machine, deploy, project):
    robot = machine.root / "robot"
    there = f"sed 's#/var/lib#{robot}/var/lib#g'"
    machine.program("sudo", 'case $1 in chown | apt-get | /usr*) ;; *) exec "$@" ;; esac\n')
    machine.program("ssh", f"""
for command; do :; done
case $command in
*print-architecture) echo arm64 ;;
*'command -v rsync'*) exit 1 ;;
*nv_tegra_release*) echo '# R36 (release), REVISION: 4.3' ;;
*bundles*) sh -c "$(echo "$command" | {there})" ;;
esac
""")
    machine.program("scp", f"""
case $* in *bundles*) ;; *) exit ;; esac
while [ $# -gt 2 ]; do shift; done
cp -r "$1" "$(echo "${{2#*:}}" | {there})"
""")
    (robot / "var/lib/pi0-edge/bundles").mkdir(parents=True)
    manifest = robot / "var/lib/pi0-edge/bundles/pick bottle/manifest.json"
    (project / "pick bottle/manifest.json").write_text("one")
    deploy("--bundle", project / "pick bottle")
    with manifest.open() as held:
        (project / "pick bottle/manifest.json").write_text("another")
        deploy("--bundle", project / "pick bottle")
        assert (held.read(), manifest.read_text()) == ("one", "another")
    assert [p.name for p in manifest.parent.parent.iterdir()] == ["pick bottle"]


def test_an_unreachable_host(machine, deploy):
    machine.program("ssh", "exit 255\n")
    assert "cannot ask robot@host" in deploy(ok=False).stderr
    assert machine.calls("scp") == []


def test_what_doctor_finds_is_shown_and_does_not_undo_the_installation(machine, deploy):
    machine.program("ssh", """
for command; do :; done
case $command in *print-arch*) echo arm64 ;; *doctor*) exit 1 ;; esac
""")
    assert "doctor found something in the way" in deploy().stderr


def test_a_failing_installation_stops(machine, deploy):
    machine.program("ssh", """
for command; do :; done
case $command in *print-arch*) echo arm64 ;; *apt-get*) exit 100 ;; esac
""")
    deploy(ok=False)
    assert remote(machine)[-1].startswith("sudo apt-get")


def test_development_files(machine, deploy):
    deploy("--dev", "--without-onnxruntime")
    (install,) = [c for c in remote(machine) if "apt-get" in c]
    assert install.endswith("./.pi0-edge-packages/pi0-edge_0.1.0_arm64.deb ./.pi0-edge-packages/libpi0-edge-dev_0.1.0_arm64.deb")
