#!/usr/bin/env bash
# Fuzzes the parsers of files, one after the other, under AddressSanitizer.
#
#     scripts/fuzz.sh [--seconds N] [PARSER...]
#
# Each parser begins with its files in fuzz/seeds, goes on with what earlier runs found, in fuzz/corpus, and ends at the first
# input that crashes it, takes 10 s or takes 2 GB. Such an input is left in fuzz/artifacts; the cure comes with the input, by a
# name that says what it was, in fuzz/seeds, which the command line's tests replay. Needs a nightly toolchain and a C++ compiler.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
export ORT_DISABLE_TELEMETRY=1

seconds=60
if [ "${1:-}" = --seconds ]; then
    seconds=$2
    shift 2
fi
[ $# -gt 0 ] || set -- $(ls seeds)

passes="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-trace-compares"
passes+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
target=$(uname -m)-unknown-linux-gnu
RUSTFLAGS="$passes --cfg fuzzing -Zsanitizer=address -Cdebug-assertions -Coverflow-checks" \
    cargo +nightly build --quiet --profile parsers --package pi0-edge-fuzz-parsers --target "$target"

for parser in "$@"; do
    [ -d "seeds/$parser" ] || { echo "there is no parser $parser; there are: $(ls seeds | xargs)" >&2; exit 2; }
    echo "== $parser" >&2
    mkdir -p "corpus/$parser" artifacts
    # Some megabytes of nested text fit into a real file; a few hundred kilobytes find the same.
    PI0_PARSER=$parser "target/$target/parsers/parsers" "corpus/$parser" "seeds/$parser" -max_total_time="$seconds" \
        -timeout=10 -rss_limit_mb=2048 -max_len=200000 -artifact_prefix="artifacts/$parser-" -print_final_stats=1
done
