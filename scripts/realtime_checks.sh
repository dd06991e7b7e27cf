#!/usr/bin/env bash
# The checks of the real-time parts that need more than `cargo test`: model checkers, sanitizers, a CPU of their own.
# usage: scripts/realtime_checks.sh [loom] [shuttle] [tsan] [rtsan] [reads] [freezes] [preemption] [emulated] [soak]
#
#   loom        every interleaving of the cell, the wake-up, the recorder and the episode, at small sizes
#   shuttle     the cell over random schedules            PI0_SHUTTLE_SCHEDULES, default 1000000
#   tsan        ThreadSanitizer on the live runtime, with a fake engine and with a real policy       nightly
#   rtsan       RealtimeSanitizer on what the control loop calls, and the proof that it can fail    nightly
#   reads       ten million reads against a flood of chunks, no allocation, system call or torn read   PI0_READS
#   freezes     inference frozen a thousand times: STALE and HOLD on the first tick past their limits   PI0_FREEZES
#   emulated    the lock-free parts, loom and a million reads as aarch64 programs   scripts/jetson.sh setup; PI0_READS
#   preemption  a reader and a preempted writer on one CPU, against a crossbeam channel   root; PI0_PREEMPTION_SECONDS
#   soak        an hour of faults at random, through the C interface   PI0_SOAK_MINUTES, PI0_SOAK_SEED
#
# All of them when none is named. A check whose tools are missing is skipped, with words. Exit status: 0 all passed or
# skipped, 1 one failed, 2 usage.
set -u
cd "$(dirname "$0")/.." || exit 1
export ORT_DISABLE_TELEMETRY=1
# Enough for the stacks in reports, and half the disk.
export CARGO_PROFILE_DEV_DEBUG=line-tables-only

readonly checks=(loom shuttle tsan rtsan reads freezes emulated preemption soak)
readonly host="$(uname -m)-unknown-linux-gnu"
jobs=(${PI0_JOBS:+-j "$PI0_JOBS"})
failed=() skipped=()
temp=$(mktemp -d) || exit 1
trap 'rm -rf "$temp"' EXIT

usage() { sed -n '2,17s/^# \{0,1\}//p' "$0"; }

skip() {
    echo "SKIPPED: $1 was NOT checked: it needs $2" >&2
    skipped+=("$1")
}

# Tests in a build of their own: name of the build, RUSTFLAGS, toolchain, then what cargo test gets.
tests() {
    local build=$1 flags=$2 toolchain=$3
    shift 3
    RUSTFLAGS="$flags" cargo ${toolchain:+"+$toolchain"} test "${jobs[@]}" \
        --target "$host" --target-dir "target/$build" "$@"
}

nightly() { cargo +nightly --version >/dev/null 2>&1; }

# Whether nightly ships the runtime of a sanitizer.
sanitizer() {
    local lib
    lib="$(rustc +nightly --print sysroot 2>/dev/null)/lib/rustlib/$host/lib"
    compgen -G "$lib/librustc*rt.$1.a" >/dev/null
}

# The lock-free parts in a crate of their own: name of the model checker, then what cargo test gets.
model_check() {
    local checker=$1
    shift
    RUSTFLAGS="--cfg pi0_$checker" cargo test "${jobs[@]}" --manifest-path tests/model_checking/Cargo.toml \
        --target-dir "target/$checker" --lib "$@" "${checker}_model" -- --nocapture
}

check_loom() { model_check loom; }

check_shuttle() {
    PI0_SHUTTLE_SCHEDULES="${PI0_SHUTTLE_SCHEDULES:-1000000}" model_check shuttle --release
}

check_tsan() {
    nightly && sanitizer tsan || { skip tsan "a nightly toolchain with ThreadSanitizer's runtime"; return; }
    # std is not built with the sanitizer, so it sees neither how the test harness hands its results over, nor the fence
    # before an Arc's last owner frees it, nor the lock around a channel's list of waiters. Nor is ONNX Runtime: what its
    # threads do to each other's memory cannot be told from a race, so calls from it are not looked at, and its condition
    # variables look like misused locks.
    printf '%s\n' race:CompletedTest 'race:alloc::sync::Arc*as core::ops::drop::Drop>::drop' \
        'race:alloc::sync::Arc*drop_slow' race:std::sync::mpmc race:crossbeam_channel::waker \
        called_from_lib:libonnxruntime >"$temp/tsan"
    local flags="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer"
    export TSAN_OPTIONS="suppressions=$temp/tsan halt_on_error=1 report_mutex_bugs=0"
    # Not optimised, so that what is suppressed has the names above.
    CARGO_PROFILE_DEV_OPT_LEVEL=0 tests tsan "$flags" nightly -p pi0-edge --lib \
        -- runtime::tests::threads realtime::cell realtime::ring realtime::wake stats --test-threads 1 &&
        CARGO_PROFILE_DEV_OPT_LEVEL=0 tests tsan "$flags" nightly --test policy runtime:: -- --test-threads 1
    local passed=$?
    unset TSAN_OPTIONS
    return $passed
}

rtsan_tests() {
    # Not optimised: it compiles in half the time, and what is called is the same.
    CARGO_PROFILE_DEV_OPT_LEVEL=0 tests rtsan \
        "--cfg pi0_rtsan -Zsanitizer=realtime -Cunsafe-allow-abi-mismatch=sanitizer" nightly -p pi0-edge -p pi0-edge-c --lib -- --test-threads 1 "$@"
}

check_rtsan() {
    nightly && sanitizer rtsan || { skip rtsan "a nightly toolchain with RealtimeSanitizer's runtime"; return; }
    # Without two that call the engine and the gate a hundred thousand times, where nothing is looked at.
    rtsan_tests runtime::tests realtime stats tests::rt_safe --skip clean_chunks --skip a_bad_value_at_any_place || return 1
    echo "now with an allocation planted in the control loop's read, which must be found"
    if rtsan_tests --ignored a_planted_allocation >"$temp/planted" 2>&1; then
        echo "the planted allocation was not found"
        return 1
    fi
    # Failing is not enough: it must be for this reason.
    grep -E 'RealtimeSanitizer|malloc|read_at' "$temp/planted" | head -n 5
    grep -q 'RealtimeSanitizer: unsafe-library-call' "$temp/planted" && grep -q 'read_at' "$temp/planted"
}

check_reads() {
    PI0_READS="${PI0_READS:-10000000}" cargo test "${jobs[@]}" --release \
        --test realtime reads:: -- --nocapture
}

check_freezes() {
    PI0_FREEZES="${PI0_FREEZES:-1000}" cargo test "${jobs[@]}" --release \
        --test realtime freezes:: -- --nocapture
}

check_soak() {
    PI0_SOAK_MINUTES="${PI0_SOAK_MINUTES:-60}" cargo test "${jobs[@]}" --release -p pi0-edge-c \
        --test interface faults_at_random -- --nocapture
}

check_preemption() {
    [ "$(id -u)" = 0 ] || { skip preemption "root, for SCHED_FIFO"; return; }
    PI0_PREEMPTION_SECONDS="${PI0_PREEMPTION_SECONDS:-60}" cargo test "${jobs[@]}" --release \
        --test realtime preemption:: -- --ignored --nocapture
}

check_emulated() {
    [ -x .cache/jetson/qemu-aarch64 ] || { skip emulated "what scripts/jetson.sh setup fetches"; return; }
    (
        . scripts/jetson/lib.sh
        use_toolchain
        # No seccomp filter in there, and the page faults are the emulator's.
        export PI0_EMULATOR="${emulator[*]}" PI0_READS="${PI0_READS:-1000000}"
        export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$PI0_EMULATOR
        for_aarch64() {
            local build=$1
            shift
            cargo-zigbuild test "${jobs[@]}" --target "aarch64-unknown-linux-gnu.$glibc_floor" \
                --target-dir "target/emulated/$build" "$@" -- --nocapture
        }
        for_aarch64 parts --manifest-path tests/model_checking/Cargo.toml --lib &&
            RUSTFLAGS="--cfg pi0_loom" for_aarch64 loom --manifest-path tests/model_checking/Cargo.toml --lib loom_model &&
            for_aarch64 reads --test realtime reads::
    )
}

for name in "$@"; do
    case " ${checks[*]} " in
    *" $name "*) ;;
    *)
        [ "$name" = --help ] && { usage; exit 0; }
        echo "unknown check: $name" >&2
        usage >&2
        exit 2
        ;;
    esac
done
[ $# -gt 0 ] || set -- "${checks[@]}"
for name in "$@"; do
    echo "== $name"
    "check_$name" || failed+=("$name")
done
echo "== done: $# checks, ${#failed[@]} failed${failed[*]:+ (${failed[*]})}, ${#skipped[@]} skipped${skipped[*]:+ (${skipped[*]})}"
[ ${#failed[@]} -eq 0 ]
