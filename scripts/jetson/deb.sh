#!/usr/bin/env bash
# Makes Debian packages of what build made: one for every directory of packaging/deb.
#
#   scripts/jetson.sh deb [--arch arm64|amd64]     arm64 when not given
#
# The same source, SOURCE_DATE_EPOCH and tools give the same bytes; SOURCE_DATE_EPOCH is the last commit's date when it
# is not set. A package's dependencies are what its ELF files need. Writes to target/jetson/deb.
. "$(dirname "$0")/lib.sh"
use_arch arm64
while [ $# -gt 0 ]; do
    case $1 in
    --arch) use_arch "${2:-}" && shift ;;
    -h | --help) usage && exit ;;
    *) wrong_use "no argument called $1" ;;
    esac
    shift
done
cd "$project"
umask 022
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null)} ||
    fail "this is no git checkout: set SOURCE_DATE_EPOCH to the date of the source, in seconds since 1970"
export SOURCE_DATE_EPOCH
export DPKG_DEB_THREADS_MAX=1 # xz splits its work, and so its output, by the number of threads
debs=$out/deb
onnxruntime=$cache/onnxruntime-$onnxruntime_arch
PI0_EDGE_ARCH=$onnxruntime_arch run scripts/fetch_onnxruntime.sh "$onnxruntime"
run scripts/jetson/templates.sh

if [ -n "$dry_run" ]; then
    say "would write to $debs: $(cd packaging/deb && echo *) for $arch, version $(project_version)"
    exit
fi
command -v dpkg-deb >/dev/null || fail "dpkg-deb is missing: install the package dpkg"
[ -x "$binary" ] || fail "there is no binary for $arch: run scripts/jetson.sh build --arch $arch first"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$debs"
rm -f "$debs"/*_"$arch".deb
scripts/jetson/third_party_notices.py "$triple" "$(dirname "$binary")/third-party-notices.gz"

# What installing puts in place, from which the packages take their parts.
stage=$work/stage
scripts/install.sh --from "$(dirname "$binary")" --destdir "$stage" --prefix /usr --libdir "lib/$multiarch" 2>/dev/null ||
    fail "there is no library for $arch: run scripts/jetson.sh build --arch $arch again"
# As Debian has them.
if [ -d "$stage/usr/share/man" ]; then
    mv "$stage/usr/share/zsh/site-functions" "$stage/usr/share/zsh/vendor-completions"
    find "$stage/usr/share/man" -type f -exec gzip -9n {} +
fi
soname=$(readelf -d "$stage/usr/lib/$multiarch/libpi0_edge.so" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')

expand() {
    sed -e "s|@BUILD@|$(dirname "$binary")|g" -e "s|@ONNXRUNTIME@|$onnxruntime|g" -e "s|@MULTIARCH@|$multiarch|g" \
        -e "s|@VERSION@|$(project_version)|g" -e "s|@ARCH@|$arch|g" \
        -e "s|@STAGE@|$stage|g" -e "s|@SONAME@|$soname|g" \
        -e "s|@ONNXRUNTIME_VERSION@|$(cut -d' ' -f1 "$onnxruntime/VERSION")|g" "$@"
}

# stage LIST ROOT: installs what a `files` list names. Its lines: MODE FROM TO, or dir - TO, or link TARGET TO, or
# tree FROM TO for a directory of data files.
stage() {
    local mode from to
    while read -r mode from to; do
        case $mode in
        '' | '#'*) ;;
        dir) install -d "$2/$to" ;;
        tree) (cd "$from" && find . -type f -exec install -D -m 0644 {} "$2/$to/{}" \;) ;;
        link) install -d "$(dirname "$2/$to")" && ln -s "$from" "$2/$to" ;;
        *) install -D -m "$mode" "$from" "$2/$to" ;;
        esac
    done < <(expand "$1")
}

elf_files() { find "$1" -type f -exec sh -c 'head -c4 "$1" | grep -q "^.ELF"' _ {} \; -print | sort; }

package() {
    local name=$1 root=$work/$1 elf=() file depends size
    mkdir -p "$root/DEBIAN"
    stage "packaging/deb/$name/files" "$root"
    mapfile -t elf < <(elf_files "$root")
    for file in "${elf[@]}"; do
        readelf -h "$file" | grep -q "Machine:.*$machine" || fail "$file is not for $arch"
    done
    depends=$([ ${#elf[@]} = 0 ] || scripts/jetson/needs.sh packages "${elf[@]}")
    size=$(find "$root" -path "$root/DEBIAN" -prune -o -type f -printf '%s\n' | awk '{n += int(($1 + 1023) / 1024)} END {print n}')
    expand -e "s|@DEPENDS@|$depends|" -e "s|@SIZE@|$size|" "packaging/deb/$name/control" >"$root/DEBIAN/control"
    (cd "$root" && find . -path './etc/*' -type f -printf '/%P\n' | sort >DEBIAN/conffiles)
    [ ! -e "packaging/deb/$name/triggers" ] || install -m 0644 "packaging/deb/$name/triggers" "$root/DEBIAN/triggers"
    [ -s "$root/DEBIAN/conffiles" ] || rm "$root/DEBIAN/conffiles"
    (cd "$root" && find . -path ./DEBIAN -prune -o -type f -printf '%P\n' | sort | xargs -d '\n' md5sum >DEBIAN/md5sums)
    find "$root" -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +
    file=$debs/${name}_$(sed -n 's/^Version: //p' "$root/DEBIAN/control")_$arch.deb
    dpkg-deb --root-owner-group -Zxz -b "$root" "$file" >/dev/null
    say "$file: $(du -h "$file" | cut -f1); $(sed -n '/^Depends/p' "$root/DEBIAN/control")"
}

for directory in packaging/deb/*/; do
    package "$(basename "$directory")"
done
