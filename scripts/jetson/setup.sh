#!/usr/bin/env bash
# Fetches what cross-compiling and emulation need into .cache/jetson. Needs no root and installs nothing.
#
#   scripts/jetson.sh setup [--std debian]
#
# A Rust standard library for aarch64: the toolchain's own, else `rustup target add`, else Debian's;
# --std debian takes Debian's compiler and library in any case.
# A linker that targets any glibc: zig and cargo-zigbuild, from PyPI.
# For `test` only: qemu-user 10, an arm64 C library, and an aarch64 ONNX Runtime.
#
# Repeated, it takes a second. To start afresh, remove .cache/jetson.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/debian.sh"
std=any
case $* in
'') ;;
'--std debian') std=debian ;;
-h | --help) usage && exit ;;
*) wrong_use "setup takes no argument but --std debian" ;;
esac

if [ -n "$dry_run" ]; then
    say "would fetch into $cache: an aarch64 Rust std if the toolchain has none, zig and cargo-zigbuild," \
        "qemu-aarch64, an arm64 C library, ONNX Runtime for aarch64"
    exit
fi
[ "$(uname -sm)" = "Linux x86_64" ] || fail "made for x86_64 Linux machines, this is $(uname -sm)"
for tool in cargo rustc python3 objdump; do
    "$tool" --version >/dev/null || fail "$tool is missing, or does not run here"
done
mkdir -p "$cache"
use_arch arm64

have_std() { compgen -G "$("$1" --print target-libdir --target "$triple" 2>/dev/null)/libstd-*.rlib" >/dev/null; }

# Debian's security suite keeps a current Rust for its browsers. It comes as compiler and libraries together,
# because one compiler's libraries are of no use to another.
rust_from_debian() {
    local version wanted missing
    private_apt "an aarch64 Rust (rustup target add $triple)"
    version=$(candidate rustc-web)
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$project/Cargo.toml")
    dpkg --compare-versions "${version:-0}" ge "$wanted" || fail "Debian has no Rust >= $wanted here" \
        "(rustc-web: ${version:-none}): install rustup, then rustup target add $triple"
    say "unpacking Debian's rustc $version with its aarch64 std"
    missing=$(apt-get -s install --no-install-recommends "rustc-web=$version" | sed -n 's/^Inst \([^ ]*\).*/\1/p')
    # shellcheck disable=SC2086  # one word a package
    unpack rust $missing "libstd-rust-web-dev:arm64=$version"
    cat >"$cache/rustc" <<'WRAPPER'
#!/bin/sh
root=$(dirname "$0")/rust
LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$root/usr/bin/rustc" "$@"
WRAPPER
    chmod +x "$cache/rustc"
    have_std "$cache/rustc" || fail "Debian's Rust came without a std for $triple"
}

if [ $std = any ] && have_std rustc; then
    rm -f "$cache/rustc"
    rust="the toolchain's own"
elif [ -x "$cache/rustc" ] && have_std "$cache/rustc"; then
    rust="Debian's, in the cache"
elif [ $std = any ] && command -v rustup >/dev/null && timeout 120 rustup target add "$triple" >"$cache/rustup.log" 2>&1; then
    rust="added by rustup"
else
    rust_from_debian
    rust="Debian's, in the cache"
fi

if ! cmp -s "$project/scripts/jetson/requirements.txt" "$cache/python/requirements.txt"; then
    say "fetching zig and cargo-zigbuild"
    python3 -m venv "$cache/python"
    "$cache/python/bin/pip" install --quiet --disable-pip-version-check --only-binary=:all: --require-hashes \
        -r "$project/scripts/jetson/requirements.txt"
    cp "$project/scripts/jetson/requirements.txt" "$cache/python/"
fi

# What runs the result: this machine's own qemu and arm64 C library, else Debian's, unpacked.
# qemu 7 crashes while loading newer ONNX Runtimes; 10 does not.
qemu_version() { "$1" --version 2>/dev/null | sed -n 's/^qemu-aarch64 version \([0-9]*\).*/\1/p'; }
if [ ! -x "$cache/qemu-aarch64" ]; then
    for qemu in qemu-aarch64 qemu-aarch64-static; do
        if command -v "$qemu" >/dev/null && [ "$(qemu_version "$qemu")" -ge 10 ]; then
            ln -sf "$(command -v "$qemu")" "$cache/qemu-aarch64"
        fi
    done
fi
if [ ! -e "$cache/sysroot" ] && [ -e /usr/aarch64-linux-gnu/lib/libstdc++.so.6 ]; then
    ln -s / "$cache/sysroot"
fi
if [ ! -x "$cache/qemu-aarch64" ] && debian_release >/dev/null; then
    private_apt "qemu-aarch64 10 or newer"
    say "unpacking qemu-aarch64"
    newest=$(apt-cache madison qemu-user | awk '{print $3}' | sort -V | tail -1)
    unpack qemu "qemu-user=$newest"
    cp "$cache/qemu/usr/bin/qemu-aarch64" "$cache/qemu-aarch64"
    rm -r "$cache/qemu"
    [ "$(qemu_version "$cache/qemu-aarch64")" -ge 10 ] || fail "this Debian has no qemu-user >= 10"
fi
if [ ! -e "$cache/sysroot" ] && debian_release >/dev/null; then
    private_apt "an arm64 C library"
    say "unpacking an arm64 C library"
    unpack sysroot libc6-arm64-cross libgcc-s1-arm64-cross libstdc++6-arm64-cross
fi
if [ -x "$cache/qemu-aarch64" ] && [ -e "$cache/sysroot" ]; then
    emulation=$("$cache/qemu-aarch64" --version | head -1)
else
    emulation="no emulation, so test will not work: it wants qemu-aarch64 10 or newer and libstdc++6-arm64-cross"
fi

PI0_EDGE_ARCH=aarch64 "$project/scripts/fetch_onnxruntime.sh" "$cache/onnxruntime-aarch64"

date >"$cache/.setup"
say "ready: aarch64 std $rust; zig $("$cache/python/bin/python" -m ziglang version);" \
    "$emulation; ONNX Runtime $(cut -d' ' -f1 "$cache/onnxruntime-aarch64/VERSION");" \
    "$(du -sh "$cache" | cut -f1) in .cache/jetson"
