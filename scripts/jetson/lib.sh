# shellcheck shell=bash
# What the scripts of this directory share. Sourced, never run.
# shellcheck disable=SC2034  # the variables are for those who source this file
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=$project/.cache/jetson  # what setup fetched
out=$project/target/jetson    # what build and deb made
bundle=$project/models/pi0-tiny
emulator=("$cache/qemu-aarch64" -L "$cache/sysroot/usr/aarch64-linux-gnu") # what setup found or fetched for test
dry_run=${PI0_EDGE_DRY_RUN:-}

# JetPack 5 has glibc 2.31, 6 has 2.35, 7 has 2.39; ONNX Runtime's own libraries need 2.28.
glibc_floor=2.28

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "jetson.sh $(basename "$0" .sh): $*"
    exit 1
}

# The comment at the top of a script is its help text.
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }

wrong_use() {
    say "jetson.sh $(basename "$0" .sh): $*"
    usage >&2
    exit 2
}

# A command as one would type it.
quoted() {
    local word separator=
    for word; do
        case $word in
        *[!a-zA-Z0-9_./:=@%+,~^-]* | '') word="'${word//\'/\'\\\'\'}'" ;;
        esac
        printf '%s%s' "$separator" "$word"
        separator=' '
    done
    printf '\n'
}

# Runs a command and says which; with --dry-run only says which.
run() {
    if [ -n "$dry_run" ]; then
        quoted "$@"
    else
        say "+ $(quoted "$@")"
        "$@"
    fi
}

as_root() {
    if [ "$(id -u)" = 0 ]; then run "$@"; else run sudo "$@"; fi
}

# Nothing is written to hardware before its name has been typed.
confirm() {
    local wanted=$1 question=$2 answer
    [ -z "$dry_run" ] || return 0
    printf '%s\nType %s to go on: ' "$question" "$wanted" >&2
    read -r answer || answer=
    [ "$answer" = "$wanted" ] || fail "'$answer' is not $wanted; nothing was done"
}

# The names one processor has: Debian's, Rust's, and the directory of its libraries.
use_arch() {
    arch=$1
    case $arch in
    arm64) triple=aarch64-unknown-linux-gnu multiarch=aarch64-linux-gnu machine=AArch64 onnxruntime_arch=aarch64 ;;
    amd64) triple=x86_64-unknown-linux-gnu multiarch=x86_64-linux-gnu machine=X86-64 onnxruntime_arch=x86_64 ;;
    *) wrong_use "no architecture called $arch; arm64 and amd64 are known" ;;
    esac
    binary=$out/$triple/release/pi0-edge
}

# The compiler and the linker that setup found or fetched.
use_toolchain() {
    [ -e "$cache/.setup" ] || [ -n "$dry_run" ] || fail "run scripts/jetson.sh setup first"
    export PATH=$cache/python/bin:$PATH
    export ZIG_GLOBAL_CACHE_DIR=$cache/zig CARGO_ZIGBUILD_CACHE_DIR=$cache/zig
    [ ! -x "$cache/rustc" ] || export RUSTC=$cache/rustc
}

# cross_build [ARGUMENT...]: a release build for the architecture in use. No path of this machine ends up in it.
cross_build() {
    local remap="--remap-path-prefix=$project=/pi0-edge --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
    cd "$project"
    [ -n "$dry_run" ] || say "building for $triple: minutes the first time, seconds when nothing changed"
    RUSTFLAGS=$remap run cargo-zigbuild zigbuild --release --locked "$@" --target "$triple.$glibc_floor" --target-dir "$out"
}

project_version() { sed -n 's/^version = "\(.*\)"/\1/p' "$project/Cargo.toml" | head -1; }

# The package of that name that deb made last.
newest_deb() { # NAME ARCH
    local deb
    deb=$(find "$out/deb" -name "$1_*_$2.deb" -printf '%T@ %p\n' 2>/dev/null | sort -n | tail -1 | cut -d' ' -f2-)
    [ -n "$deb" ] || fail "there is no $2 package of $1 in $out/deb: run scripts/jetson.sh deb --arch $2 first"
    printf '%s\n' "$deb"
}
