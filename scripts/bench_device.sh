#!/usr/bin/env bash
# Measures a policy on the computer of a robot, over ssh or right there, and leaves a report: json, a table to paste, and a
# page with plots. Needs nothing on that computer but the package pi0-edge (scripts/jetson.sh deploy HOST installs it).
#
#   scripts/bench_device.sh [--host HOST] [--bundle DIR | --synthetic pi0|pi05] [OPTION...] [-- BENCH OPTION...]
#
#   --host HOST          measure there, as ssh names it, for instance robot@192.168.55.1; without it, on this machine
#   --bundle DIR         the bundle, a directory of the machine that is measured; a name alone is one that was deployed
#   --synthetic KIND     a full-size policy with random weights, filled in on the spot: pi0 (when nothing is said) or pi05
#   --precision P        of the synthetic one: fp32, or what the package has templates for
#   --minutes M          length of the steady run, 5 when not given
#   --output DIR         where the report goes on this machine, pi0-edge-bench-DATE when not given
#   --dry-run            print the commands instead of running them
#
# What follows -- goes to `pi0-edge bench device`; its --help says what there is, such as --threads or --action-rate.
# Set full power and fixed clocks first, for figures that repeat: sudo /usr/lib/pi0-edge/full-power, there.
set -euo pipefail

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }
fail() { echo "bench_device.sh: $*" >&2 && exit 1; }
wrong_use() { echo "bench_device.sh: $*; --help shows the usage" >&2 && exit 2; }

host='' bundle='' synthetic='' precision=fp32 minutes=5 output='' dry_run='' more=()
while [ $# -gt 0 ]; do
    case $1 in
    --host | --bundle | --synthetic | --precision | --minutes | --output)
        [ -n "${2:-}" ] || wrong_use "$1 wants a value"
        printf -v "${1#--}" %s "$2"
        shift
        ;;
    --dry-run) dry_run=1 ;;
    -h | --help) usage && exit ;;
    --) shift && more=("$@") && break ;;
    *) wrong_use "no argument called $1" ;;
    esac
    shift
done
[ -z "$bundle" ] || [ -z "$synthetic" ] || wrong_use "--bundle or --synthetic, not both"
[ -n "$bundle" ] || synthetic=${synthetic:-pi0}
output=${output:-pi0-edge-bench-$(date -u +%Y%m%dT%H%M%SZ)}

quoted() { printf '%q ' "$@"; }
show() { local line; line=$(quoted "$@") && printf '%s\n' "${line% }"; }

if [ -n "$host" ]; then
    options=()
    if [ -z "$dry_run" ]; then
        # One connection for everything: one password at most.
        sockets=$(mktemp -d)
        options=(-o ControlMaster=auto -o "ControlPath=$sockets/%C" -o ControlPersist=60)
        trap 'ssh "${options[@]}" -O exit "$host" 2>/dev/null || true; rm -rf "$sockets"' EXIT
    fi
    # shellcheck disable=SC2029  # the command is for the other side
    there() { ssh "${options[@]}" "$host" "$(quoted "$@")"; }
    pi0_edge=pi0-edge reports=.pi0-edge-bench
else
    there() { "$@"; }
    built=$(dirname "$0")/../target/release/pi0-edge
    pi0_edge=${PI0_EDGE:-$(command -v pi0-edge || { [ ! -x "$built" ] || echo "$built"; })}
    [ -n "$pi0_edge" ] || fail "there is no pi0-edge: install the package, or build it by cargo build --release"
    reports=$output
fi
run() { if [ -n "$dry_run" ]; then show ${host:+ssh "$host"} "$@"; else there "$@"; fi; }

[ -n "$dry_run" ] || there "$pi0_edge" --version >&2 ||
    fail "pi0-edge does not run ${host:+on $host: install it by scripts/jetson.sh deploy $host}"
if [ -n "$synthetic" ] && [ -n "$dry_run" ]; then
    show ${host:+ssh "$host"} "$pi0_edge" synthesize "$synthetic" --precision "$precision"
    bundle=DIRECTORY
elif [ -n "$synthetic" ]; then
    bundle=$(there "$pi0_edge" synthesize "$synthetic" --precision "$precision")
elif [ "${bundle#*/}" = "$bundle" ] && { [ -n "$host" ] || [ ! -d "$bundle" ]; }; then
    bundle=/var/lib/pi0-edge/bundles/$bundle
fi
bench=("$pi0_edge" bench device "$bundle" --minutes "$minutes" --output "$reports" "${more[@]}") status=0
if [ -z "$host" ] || [ -n "$dry_run" ]; then
    run "${bench[@]}" || status=$?
else
    # Ctrl-C does not reach the other machine by itself, and ssh must outlive it: the program there ends with what it has.
    # shellcheck disable=SC2016  # for the shell on the other side
    trap 'there sh -c '\''kill -INT "$(cat "$0")"'\'' "$reports.pid" || true' INT TERM
    # shellcheck disable=SC2016
    there sh -c 'echo $$ >"$0"; exec "$@"' "$reports.pid" "${bench[@]}" &
    measuring=$!
    wait "$measuring" || status=$?
    while kill -0 "$measuring" 2>/dev/null; do wait "$measuring" && status=0 || status=$?; done
    there rm -f "$reports.pid"
fi
# 130: interrupted, and reported as far as it came.
[ "$status" = 0 ] || [ "$status" = 130 ] || exit "$status"
if [ -n "$host" ] && [ -n "$dry_run" ]; then
    show scp "$host:$reports/*" "$output"
elif [ -n "$host" ]; then
    there test -d "$reports" || exit "$status"
    mkdir -p "$output"
    scp -q "${options[@]}" "$host:$reports/*" "$output"
    there rm -r "$reports"
fi
[ -n "$dry_run" ] || [ ! -e "$output/report.html" ] || echo "report: $output/report.html" >&2
exit "$status"
