"""Lets PyPI's CUDA build of torch be imported where there is no CUDA.

There is no CPU-only torch wheel for Linux x86-64 on PyPI, and the CUDA one asks for 2 GB
of libraries that a CPU run never calls. The dynamic loader insists on them all the same:
on the files, and on every symbol that is not bound lazily. So this writes one small
library for each missing file, with the symbols torch expects in it. Calling one of them
prints its name and aborts.

What to write is read from torch's own libraries, so no list of names has to be kept:

* a file is missing if a torch library needs it and the loader cannot find it;
* a symbol with a version goes where the version table says it belongs;
* a symbol without one may come from any library, so whatever nobody defines goes into the
  first stub.

libcudart is not replaced: torch's static initialisers really call it.

usage: cuda_stubs.py SITE_PACKAGES
"""

import collections
import ctypes
import pathlib
import re
import subprocess
import sys
import tempfile


MARK = b"pi0_edge_cuda_stub"

# Opened by torch when a kernel is compiled for a GPU, never at import. It links to the
# driver itself, and a stub of that could be taken for a GPU.
LOADED_ON_DEMAND = {"libcaffe2_nvrtc.so"}


class Elf:
    """What the dynamic section of one shared library says."""

    def __init__(self, path):
        dump = subprocess.run(
            ["readelf", "--wide", "--dynamic", "--version-info", "--dyn-syms", str(path)],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        self.needed = re.findall(r"\(NEEDED\).*\[(.+?)\]", dump)
        self.version_owner = {}
        owner = None
        for kind, name in re.findall(r"^\s+(?:0x)?[0-9a-f]+:.*?\b(File|Name): (\S+)", dump, re.M):
            if kind == "File":
                owner = name
            elif owner:
                self.version_owner.setdefault(name, owner)
        self.defined, self.undefined = set(), set()
        for binding, index, name in re.findall(
            r"^\s*\d+: [0-9a-f]+\s+\S+\s+\S+\s+(\S+)\s+\S+\s+(\S+) (\S+)", dump, re.M
        ):
            name, _, version = name.replace("@@", "@").partition("@")
            if index != "UND":
                self.defined.add(name)
            elif binding != "WEAK":
                self.undefined.add((name, version))


def loadable(soname):
    try:
        return ctypes.CDLL(soname)
    except OSError:
        return None


def plan(site):
    """{missing soname: {version or "": [symbols]}}"""
    libraries = [path for path in sorted((site / "torch" / "lib").glob("*.so*")) if not is_stub(path)]
    if not libraries:
        sys.exit(f"cuda_stubs: no torch libraries under {site}; install torch first")
    present = {path.name for path in libraries} | {path.name for path in (site / "nvidia").rglob("*.so*")}
    elves = [Elf(path) for path in libraries if path.name not in LOADED_ON_DEMAND]

    needed = sorted(set().union(*(elf.needed for elf in elves)) - present)
    system = [ctypes.CDLL(None)]
    missing = []
    for soname in needed:
        library = loadable(soname)
        if library is None:
            missing.append(soname)
        else:
            system.append(library)

    defined = set().union(*(elf.defined for elf in elves))
    stubs = {soname: collections.defaultdict(set) for soname in missing}
    orphans = set()
    for elf in elves:
        for name, version in elf.undefined:
            if version:
                owner = elf.version_owner.get(version)
                if owner in stubs:
                    stubs[owner][version].add(name)
            elif name not in defined:
                orphans.add(name)
    for name in sorted(orphans):
        if missing and not any(hasattr(library, name) for library in system):
            stubs[missing[0]][""].add(name)
    return stubs


def is_stub(path):
    return path.stat().st_size < 1 << 20 and MARK in path.read_bytes()


def build(soname, versions, target):
    names = sorted(set().union(*versions.values())) if versions else []
    source = [
        "#include <stdio.h>",
        "#include <stdlib.h>",
        f'const char {MARK.decode()}[] = "{MARK.decode()}";',
        "static void refuse(const char *name) {",
        f'    fprintf(stderr, "%s of {soname} was called, but this is a CPU-only stub\\n", name);',
        "    abort();",
        "}",
        *(f'void {name}(void) {{ refuse("{name}"); }}' for name in names),
    ]
    with tempfile.TemporaryDirectory() as scratch:
        code = pathlib.Path(scratch, "stub.c")
        code.write_text("\n".join(source) + "\n")
        command = ["gcc", "-w", "-shared", "-fPIC", "-Os", "-fno-builtin", f"-Wl,-soname,{soname}"]
        script = pathlib.Path(scratch, "versions")
        # A version node must exist even when it owns nothing else: the loader looks for it by name.
        nodes = [f"{version} {{ global: {'; '.join(sorted(owned))}; }};" for version, owned in versions.items() if version]
        if nodes:
            script.write_text("\n".join(nodes) + "\n")
            command.append(f"-Wl,--version-script={script}")
        subprocess.run([*command, str(code), "-o", str(target)], check=True)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.splitlines()[-1])
    site = pathlib.Path(sys.argv[1])
    total = 0
    stubs = plan(site)
    for soname, versions in stubs.items():
        # Beside torch's own libraries: their run path ends with $ORIGIN, after the places
        # where real CUDA libraries would be, so those win if they are ever installed.
        target = site / "torch" / "lib" / soname
        build(soname, versions, target)
        total += target.stat().st_size
    print(f"cuda_stubs: {len(stubs)} libraries, {total / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
