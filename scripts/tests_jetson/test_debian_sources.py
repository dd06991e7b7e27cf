"""Which of a machine's apt sources the private apt of `setup` takes over."""
from conftest import PROJECT

SCRIPT = PROJECT / "scripts/jetson/debian_sources.py"


def picked(machine, name, text):
    path = machine.root / name
    path.write_text(text)
    return machine.run(SCRIPT, "bookworm", machine.root / "missing.list", path).stdout


def test_deb822(machine):
    assert picked(machine, "debian.sources", """\
Types: deb deb-src
# a comment
URIs: http://deb.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Architectures: amd64
Signed-By: /usr/share/keyrings/debian.gpg

Types: deb
URIs: http://deb.example/security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://deb.example/off
Suites: bookworm

Types: deb
URIs: http://third.example
Suites: stable
""") == """\
Types: deb
URIs: http://deb.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian.gpg

Types: deb
URIs: http://deb.example/security
Suites: bookworm-security
Components: main

"""


def test_one_line(machine):
    assert picked(machine, "sources.list", """\
#deb http://deb.example/off bookworm main
deb-src http://deb.example/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/debian.gpg] http://deb.example/debian bookworm main contrib # note
deb http://deb.example/security bookworm-security main
deb http://third.example stable main
""") == """\
Types: deb
URIs: http://deb.example/debian
Suites: bookworm bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian.gpg

Types: deb
URIs: http://deb.example/security
Suites: bookworm-security
Components: main

"""
