# shellcheck shell=bash
# Debian packages, unpacked into the project's cache: no root, and nothing is installed. Sourced after lib.sh.
# shellcheck disable=SC2154  # lib.sh sets them
# A private apt that uses this machine's own Debian sources and keys, and knows arm64 too.
private_apt() {
    local apt=$cache/apt codename
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && [ "$ID" = debian ] && echo "$VERSION_CODENAME") ||
        fail "this machine is not Debian: install $1 yourself (docs/jetson.md, section Setup)"
    mkdir -p "$apt"/{lists/partial,cache/archives/partial,sources,none}
    debian_sources "$codename" >"$apt/sources/debian.sources"
    [ -s "$apt/sources/debian.sources" ] || fail "found no source of Debian $codename under /etc/apt"
    {
        apt-config dump | grep '^Acquire::' || true # a proxy, if there is one
        cat <<CONF
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$apt/sources";
Dir::Etc::parts "$apt/none";
Dir::Etc::preferencesparts "$apt/none";
Dir::State::lists "$apt/lists";
Dir::Cache "$apt/cache";
Dir::State::status "/var/lib/dpkg/status";
APT::Architecture "amd64";
APT::Architectures { "amd64"; "arm64"; };
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
CONF
    } >"$apt/apt.conf"
    export APT_CONFIG=$apt/apt.conf
    [ -n "$(find "$apt/lists" -name '*Packages*' -mmin -1440 -print -quit)" ] || apt-get -qq update
}

# The machine's sources of its own release, in deb822 form, and the backports beside the main one.
debian_sources() {
    python3 - "$1" /etc/apt/sources.list /etc/apt/sources.list.d/* <<'PYTHON'
import pathlib, re, shlex, sys
codename, *files = sys.argv[1:]
stanzas = []
for file in map(pathlib.Path, files):
    text = file.read_text() if file.is_file() else ""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    if file.suffix == ".sources":
        for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
            stanzas.append(dict(re.findall(r"^([\w-]+):[ \t]*(.*(?:\n[ \t].*)*)", stanza, re.M)))
    elif file.suffix == ".list":
        for line in lines:
            match = re.match(r"deb\s+(?:\[(.*?)\]\s+)?(\S+)\s+(\S+)\s+(.*)", line)
            if match:
                options, uri, suite, components = match.groups()
                stanza = {"Types": "deb", "URIs": uri, "Suites": suite, "Components": components}
                key = dict(part.split("=", 1) for part in shlex.split(options or "") if "=" in part).get("signed-by")
                stanzas.append(stanza | ({"Signed-By": key} if key else {}))
for stanza in stanzas:
    suites = [suite for suite in stanza.get("Suites", "").split()
              if suite in (codename, codename + "-updates", codename + "-security")]
    if suites and "deb" in stanza.get("Types", "").split() and stanza.get("Enabled") != "no":
        if codename in suites:
            suites.append(codename + "-backports")
        stanza |= {"Types": "deb", "Suites": " ".join(suites)}
        stanza.pop("Architectures", None)
        print("\n".join(f"{name}: {value}" for name, value in stanza.items()), end="\n\n")
PYTHON
}

# unpack DIR PACKAGE...: downloads packages and unpacks them into a directory of the cache, in one step or not at all.
unpack() {
    local to=$cache/$1 downloads deb
    shift
    [ ! -d "$to" ] || return 0
    downloads=$(mktemp -d "$cache/unpack.XXXXXX")
    mkdir "$downloads/root"
    (cd "$downloads" && apt-get -qq download "$@")
    for deb in "$downloads"/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x --exclude='./usr/share/doc' --exclude='./usr/share/man' -C "$downloads/root"
    done
    mv "$downloads/root" "$to"
    rm -r "$downloads"
}

candidate() { apt-cache policy "$1" | sed -n 's/^ *Candidate: //p'; }
