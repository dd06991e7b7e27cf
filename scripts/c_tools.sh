#!/usr/bin/env bash
# What the tests of the C interface need beside Rust: compilers, CMake, pkg-config, valgrind. Installs what is missing
# where that can be done (root on Debian or Ubuntu), and says what is left out where it cannot.
set -euo pipefail

declare -A package=([g++]=g++ [clang++]=clang [cmake]=cmake [pkg-config]=pkg-config [valgrind]=valgrind
    [readelf]=binutils)
missing=()
for tool in "${!package[@]}"; do
    command -v "$tool" >/dev/null || missing+=("${package[$tool]}")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update >&2 && apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null && exit 0
fi
echo "tests of the C interface that need ${missing[*]} are left out: apt-get install ${missing[*]}" >&2
