#!/usr/bin/env bash
# Installs the program, its man pages and completions for bash, zsh and fish, the library for C and C++, and what
# pkg-config and CMake need to find it.
#
#   scripts/install.sh [--prefix P] [--destdir D] [--libdir L] [--onnxruntime FILE] [--target TRIPLE | --from DIR]
#
#   --prefix P           where it will be used, an absolute path (default /usr/local)
#   --destdir D          where it is put for now, for packages: files go to D/P
#   --libdir L           below the prefix (default lib; Debian: lib/x86_64-linux-gnu)
#   --onnxruntime FILE   also installs this libonnxruntime.so.1, to LIBDIR/pi0-edge, where it is found
#   --target TRIPLE      builds for another machine, for example aarch64-unknown-linux-gnu (needs its linker)
#   --from DIR           builds nothing: DIR has pi0-edge, libpi0_edge.so and libpi0_edge.a
#
# Exit status: 0 installed, 1 failed, 2 usage.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "install: $*" >&2; exit "${status:-1}"; }
usage() { sed -n '2,14s/^# \{0,1\}//p' scripts/install.sh; }

prefix=/usr/local destdir='' libdir=lib onnxruntime='' target='' from=''
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage && exit ;;
    --prefix | --destdir | --libdir | --onnxruntime | --target | --from)
        [ -n "${2:-}" ] || status=2 fail "$1 needs a value"
        printf -v "${1#--}" %s "$2"
        shift
        ;;
    *) usage >&2 && status=2 fail "no argument called $1" ;;
    esac
    shift
done
[[ $prefix = /* ]] || status=2 fail "the prefix must be an absolute path, not $prefix"
[[ $libdir != /* ]] || status=2 fail "the library directory is below the prefix, so it must not be absolute: $libdir"
[ -z "$from" ] || [ -z "$target" ] || status=2 fail "--from and --target: one of them"
[ -z "$onnxruntime" ] || [ -f "$onnxruntime" ] || fail "there is no $onnxruntime"

if [ -z "$from" ]; then
    echo "building the program and the libraries: minutes the first time, seconds when nothing changed" >&2
    cargo build --release --locked ${target:+--target "$target"}
    from=${CARGO_TARGET_DIR:-target}/${target:+$target/}release
fi
for file in pi0-edge libpi0_edge.so libpi0_edge.a; do
    [ -f "$from/$file" ] || fail "there is no $from/$file: build it, or leave --from away"
done

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
IFS=. read -r major minor _ <<<"$version"
soname=$(LC_ALL=C readelf -d "$from/libpi0_edge.so" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')
[ -n "$soname" ] || fail "$from/libpi0_edge.so has no SONAME"
# What rustc says the static library needs (--print native-static-libs).
system_libs="-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc"

root=${destdir%/}$prefix
lib=$root/$libdir
install -d "$root/bin" "$root/include" "$root/share" "$lib/pkgconfig" "$lib/cmake/pi0_edge"
install -m 0755 "$from/pi0-edge" "$root/bin/pi0-edge"
# The program writes them, and scripts/jetson.sh build keeps those of a program that does not run here.
if [ -d "$from/share" ]; then
    cp -R "$from/share/." "$root/share"
else
    "$from/pi0-edge" generate "$root/share" 2>/dev/null ||
        echo "install: no man pages and completions, because $from/pi0-edge does not run here" >&2
fi
# What `pi0-edge synthesize` fills in, where scripts/jetson/templates.sh made it; the small policies are in the program.
if [ -d target/templates ]; then
    install -d "$root/share/pi0-edge/templates"
    cp -R target/templates/. "$root/share/pi0-edge/templates"
fi
install -m 0644 crates/pi0-edge-c/include/pi0_edge.h crates/pi0-edge-c/include/pi0_edge.hpp "$root/include"
install -m 0644 "$from/libpi0_edge.so" "$lib/libpi0_edge.so.$version"
ln -sfn "libpi0_edge.so.$version" "$lib/$soname"
ln -sfn "$soname" "$lib/libpi0_edge.so"
install -m 0644 "$from/libpi0_edge.a" "$lib/libpi0_edge.a"
[ -z "$onnxruntime" ] || install -D -m 0644 "$onnxruntime" "$lib/pi0-edge/libonnxruntime.so.1"

# Where no loader looks by itself, programs are told.
case $prefix in /usr | /usr/local) run_path= ;; *) run_path='-Wl,-rpath,${libdir} ' ;; esac

# The CMake files can be moved with the prefix: they only know the way up.
up=$(realpath -m --relative-to="$prefix/$libdir/cmake/pi0_edge" "$prefix")
fill_in() {
    sed -e "s|@PREFIX@|$prefix|g" -e "s|@LIBDIR@|\${prefix}/$libdir|g" -e "s|@VERSION@|$version|g" \
        -e "s|@RUN_PATH@|$run_path|g" -e "s|@MAJOR@|$major|g" -e "s|@MINOR@|$minor|g" -e "s|@SONAME@|$soname|g" \
        -e "s|@SYSTEM_LIBS@|$system_libs|g" -e "s|@CMAKE_TO_PREFIX@|$up|g" "packaging/install/$1.in" >"$2/$1"
    chmod 0644 "$2/$1"
}
fill_in pi0_edge.pc "$lib/pkgconfig"
fill_in pi0_edge-config.cmake "$lib/cmake/pi0_edge"
fill_in pi0_edge-config-version.cmake "$lib/cmake/pi0_edge"
echo "installed pi0-edge $version below $root" >&2
[ -n "$onnxruntime" ] || [ -e "$lib/pi0-edge/libonnxruntime.so.1" ] ||
    echo "ONNX Runtime is not part of it: give --onnxruntime, set ORT_DYLIB_PATH, or install it on the system" >&2
[ -n "$destdir" ] || [ "$(id -u)" != 0 ] || ! command -v ldconfig >/dev/null || ldconfig 2>/dev/null || true
