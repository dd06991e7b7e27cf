#!/usr/bin/env bash
# Writes crates/pi0-edge-c/include/pi0_edge.h from crates/pi0-edge-c/src.
#
#   scripts/header.sh             writes it
#   scripts/header.sh --check     compares: exit status 1 if it is not what crates/pi0-edge-c/src says
set -euo pipefail
cd "$(dirname "$0")/.."
case ${1:-} in
'' | --check) ;;
*) sed -n '2,5s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
esac
header=crates/pi0-edge-c/include/pi0_edge.h
new=$(mktemp)
trap 'rm -f "$new"' EXIT
cargo run --quiet --locked --manifest-path scripts/header/Cargo.toml --target-dir target/header >"$new"
if [ -z "${1:-}" ]; then
    install -D -m 0644 "$new" "$header"
elif ! diff -u "$header" "$new" >&2; then
    echo "$header is not what crates/pi0-edge-c/src says: run scripts/header.sh" >&2
    exit 1
fi
