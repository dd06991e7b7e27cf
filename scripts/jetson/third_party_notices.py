#!/usr/bin/env python3
"""Writes the licence texts of every Rust library that ends up in the binary.

    third_party_notices.py TARGET_TRIPLE OUT.gz

Reads Cargo.lock and the unpacked sources through `cargo metadata`; the same lock gives the same bytes.
"""
import gzip
import json
import pathlib
import subprocess
import sys

TEXTS = ("LICENSE*", "LICENCE*", "COPYING*", "COPYRIGHT*", "NOTICE*", "license*")


def linked(metadata):
    """The packages reached from the project's crates by normal dependencies, by name and version."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    packages = {package["id"]: package for package in metadata["packages"]}
    ours = set(metadata["workspace_members"])
    seen, todo = set(ours), list(ours)
    while todo:
        for dep in nodes[todo.pop()]["deps"]:
            if dep["pkg"] not in seen and any(kind["kind"] is None for kind in dep["dep_kinds"]):
                seen.add(dep["pkg"])
                todo.append(dep["pkg"])
    return sorted((packages[i] for i in seen - ours), key=lambda p: (p["name"], p["version"]))


def main():
    triple, out = sys.argv[1:]
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", triple]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    parts = ["The Rust libraries in pi0-edge and their licences.\n"]
    for package in linked(metadata):
        parts.append(f"{'=' * 100}\n{package['name']} {package['version']}\n{package['license'] or 'see below'}\n"
                     f"{package['repository'] or ''}\n")
        directory = pathlib.Path(package["manifest_path"]).parent
        files = sorted({file for pattern in TEXTS for file in directory.glob(pattern) if file.is_file()})
        parts += [f"\n--- {file.name}\n{file.read_text(errors='replace').strip()}\n" for file in files]
    with open(out, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
        packed.write("\n".join(parts).encode())


main()
