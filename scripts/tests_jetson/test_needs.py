"""`needs.sh`: the glibc gate and computed dependencies, on this machine's own programs."""
import shutil

import pytest
from conftest import PROJECT

NEEDS = PROJECT / "scripts/jetson/needs.sh"
pytestmark = pytest.mark.skipif(not shutil.which("objdump"), reason="needs objdump")


def test_gate(machine):
    needed = machine.run(NEEDS, "glibc", "/bin/true").stdout.strip()
    machine.run(NEEDS, "gate", needed, "/bin/true")
    machine.run(NEEDS, "gate", "2.999", "/bin/true")
    result = machine.run(NEEDS, "gate", "2.0", "/bin/true", ok=False)
    assert f"glibc {needed} is needed, 2.0 is allowed: __libc_start_main" in result.stderr


def test_gate_wants_a_dynamic_binary(machine):
    result = machine.run(NEEDS, "gate", "2.28", __file__, ok=False)
    assert "is it a dynamic Linux binary?" in result.stderr


def test_versions_are_compared_as_numbers(machine):
    machine.program("objdump", """for v in 9 28 4; do echo " DF *UND* (GLIBC_2.$v) f"; done\n""")
    assert machine.run(NEEDS, "glibc", "x").stdout == "2.28\n"
    machine.run(NEEDS, "gate", "2.28", "x")
    machine.run(NEEDS, "gate", "2.27", "x", ok=False)


@pytest.mark.parametrize("libraries, expected", [
    ("libc.so.6 libm.so.6 ld-linux-aarch64.so.1", "libc6 (>= 2.28)"),
    ("libc.so.6 libgcc_s.so.1", "libc6 (>= 2.28), libgcc-s1"),
    ("libc.so.6 libgcc_s.so.1 libstdc++.so.6", "libc6 (>= 2.28), libgcc-s1, libstdc++6 (>= 6)"),
])
def test_packages(machine, libraries, expected):
    machine.program("objdump", f"""
case $1 in
-T) echo ' DF *UND* (GLIBC_2.28) a'; echo ' DF *UND* (GLIBCXX_3.4.22) b' ;;
-p) for l in {libraries}; do echo "  NEEDED  $l"; done ;;
esac
""")
    assert machine.run(NEEDS, "packages", "x").stdout == expected + "\n"


def test_an_unknown_library_is_an_error(machine):
    machine.program("objdump", """
case $1 in -T) echo ' DF *UND* (GLIBC_2.28) a' ;; -p) echo '  NEEDED  libssl.so.3' ;; esac
""")
    assert "libssl.so.3 is needed, and no package is known for it" in machine.run(NEEDS, "packages", "x", ok=False).stderr
