# shellcheck shell=bash
# Debian packages, unpacked into the project's cache: no root, and nothing is installed. Sourced after lib.sh.
# shellcheck disable=SC2154  # lib.sh sets them
# shellcheck source=/dev/null
debian_release() { (. /etc/os-release && [ "${ID:-}" = debian ] && echo "$VERSION_CODENAME"); }

# A private apt that uses this machine's own Debian sources and keys, and knows arm64 too.
private_apt() {
    local apt=$cache/apt codename
    codename=$(debian_release) || fail "this machine is not Debian: install $1 yourself (docs/jetson.md, section Setup)"
    mkdir -p "$apt"/{lists/partial,cache/archives/partial,sources,none}
    "$project/scripts/jetson/debian_sources.py" "$codename" /etc/apt/sources.list /etc/apt/sources.list.d/* \
        >"$apt/sources/debian.sources"
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
