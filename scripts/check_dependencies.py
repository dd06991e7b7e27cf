#!/usr/bin/env python3
"""Holds the workspace's dependencies to deny.toml: licences, bans, versions and sources, as `cargo deny check` would.

    scripts/check_dependencies.py

Needs cargo. Tests' own dependencies are left out, as deny.toml says. Exit status: 0 all is allowed, 1 something is not.
"""
from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def linked(targets: list[str]) -> dict[str, dict]:
    """The packages that the workspace's crates reach on any of the targets, by id; not by way of tests."""
    reached = {}
    for target in targets:
        command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
        metadata = json.loads(subprocess.run(command, cwd=PROJECT, check=True, stdout=subprocess.PIPE).stdout)
        packages = {package["id"]: package for package in metadata["packages"]}
        nodes = {node["id"]: node["deps"] for node in metadata["resolve"]["nodes"]}
        seen, todo = set(), list(metadata["workspace_members"])
        while todo:
            package = todo.pop()
            if package not in seen:
                seen.add(package)
                todo += [dep["pkg"] for dep in nodes[package] if any(kind["kind"] != "dev" for kind in dep["dep_kinds"])]
        reached |= {package: packages[package] for package in seen - set(metadata["workspace_members"])}
    return reached


def allowed(licence: str, names: list[str]) -> bool:
    """Whether an SPDX expression can be met with these licences; a slash is an old way to write OR."""
    words = re.findall(r"[()]|\bAND\b|\bOR\b|/|[\w.+-]+(?: WITH [\w.+-]+)?", licence)

    def either() -> bool:
        result = both()
        while words and words[0] in ("OR", "/"):
            words.pop(0)
            result |= both()
        return result

    def both() -> bool:
        result = one()
        while words and words[0] == "AND":
            words.pop(0)
            result &= one()
        return result

    def one() -> bool:
        word = words.pop(0)
        if word != "(":
            return word in names
        result = either()
        words.pop(0)
        return result

    return either()


def main() -> None:
    rules = tomllib.loads((PROJECT / "deny.toml").read_text(encoding="utf-8"))
    packages = linked(rules["graph"]["targets"])
    sources = {f"registry+{url}" for url in rules["sources"]["allow-registry"]}
    banned = {rule["crate"]: rule["reason"] for rule in rules["bans"]["deny"]}
    versions: dict[str, set[str]] = {}
    faults = []
    for package in packages.values():
        name, version = package["name"], package["version"]
        versions.setdefault(name, set()).add(version)
        if package["source"] not in sources:
            faults.append(f"{name} {version} is from {package['source']}")
        if not allowed(package["license"] or "none", rules["licenses"]["allow"]):
            faults.append(f"{name} {version} is licensed under {package['license']}, which licenses.allow does not have")
        if name in banned:
            faults.append(f"{name} {version} is banned: {banned[name]}")
    if rules["bans"]["multiple-versions"] == "deny":
        skipped = {rule["crate"].split("@")[0] for rule in rules["bans"].get("skip", [])}
        faults += [f"{name} is there {len(v)} times: {', '.join(sorted(v))}" for name, v in versions.items()
                   if len(v) > 1 and name not in skipped]
    for fault in sorted(faults):
        print(f"check_dependencies: {fault}", file=sys.stderr)
    print(f"{len(packages)} packages looked at, {len(faults)} faults", file=sys.stderr)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
