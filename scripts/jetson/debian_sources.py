#!/usr/bin/env python3
"""Picks a machine's own sources of its Debian release out of apt's files, with the backports beside the main one.

    debian_sources.py CODENAME FILE...      prints them in deb822 form
"""
import pathlib
import re
import shlex
import sys


def deb822(text):
    """The stanzas of a .sources file."""
    for stanza in re.split(r"\n\s*\n", text):
        yield dict(re.findall(r"^([\w-]+):[ \t]*(.*(?:\n[ \t].*)*)", stanza, re.M))


def one_line(text):
    """The lines of a .list file, as stanzas."""
    for line in text.splitlines():
        match = re.match(r"deb\s+(?:\[(.*?)\]\s+)?(\S+)\s+(\S+)\s+([^#]*)", line)
        if match:
            options, uri, suite, components = match.groups()
            stanza = {"Types": "deb", "URIs": uri, "Suites": suite, "Components": components.strip()}
            for option in shlex.split(options or ""):
                name, _, value = option.partition("=")
                if name == "signed-by":
                    stanza["Signed-By"] = value
            yield stanza


def main():
    codename, *files = sys.argv[1:]
    for file in map(pathlib.Path, files):
        if not file.is_file() or file.suffix not in (".sources", ".list"):
            continue
        text = "\n".join(line for line in file.read_text().splitlines() if not line.startswith("#"))
        for stanza in (deb822 if file.suffix == ".sources" else one_line)(text):
            suites = [suite for suite in stanza.get("Suites", "").split()
                      if suite in (codename, codename + "-updates", codename + "-security")]
            if not suites or "deb" not in stanza.get("Types", "").split() or stanza.get("Enabled", "yes") == "no":
                continue
            if codename in suites:
                suites.append(codename + "-backports")
            stanza |= {"Types": "deb", "Suites": " ".join(suites)}
            stanza.pop("Architectures", None)
            print("\n".join(f"{name}: {value}" for name, value in stanza.items()), end="\n\n")


main()
