#!/usr/bin/env bash
# What ELF files need from the system they run on.
#
#   scripts/jetson/needs.sh glibc FILE...            the newest glibc version that a symbol asks for
#   scripts/jetson/needs.sh gate VERSION FILE...     fails when a symbol needs a newer glibc, and names it
#   scripts/jetson/needs.sh packages FILE...         the same as a Debian Depends line
. "$(dirname "$0")/lib.sh"

versions() { # PREFIX FILE...: the versions of the PREFIX_x.y symbols that the files lack, oldest first
    local prefix=$1
    shift
    objdump -T "$@" 2>/dev/null | grep -F '*UND*' | grep -oE "\b${prefix}_[0-9.]+" | cut -d_ -f2 | sort -uV
}

newest() { versions "$@" | tail -1 || true; }

gate() {
    local allowed=$1 needed
    shift
    needed=$(newest GLIBC "$@")
    [ -n "$needed" ] || fail "no versioned glibc symbol in $*: is it a dynamic Linux binary?"
    [ "$(printf '%s\n' "$needed" "$allowed" | sort -V | tail -1)" = "$allowed" ] || fail "glibc $needed is needed," \
        "$allowed is allowed: $(objdump -T "$@" | sed -n "s/.*\*UND\*.*(\?GLIBC_$needed)\? *//p" | sort -u | tr '\n' ' ')"
}

# Every needed library must be known here: an unknown one is a package that nobody would install.
packages() {
    local library libraries depends=()
    libraries=$(objdump -p "$@" | awk '$1 == "NEEDED" {print $2}' | sort -u)
    depends+=("libc6 (>= $(newest GLIBC "$@"))")
    for library in $libraries; do
        case $library in
        ld-linux-* | libc.so.6 | libm.so.6 | libdl.so.2 | libpthread.so.0 | librt.so.1 | libutil.so.1) ;;
        libgcc_s.so.1) depends+=("libgcc-s1") ;;
        libstdc++.so.6) depends+=("libstdc++6 (>= $(libstdcxx "$@"))") ;;
        *) fail "$library is needed, and no package is known for it" ;;
        esac
    done
    local IFS=,
    printf '%s\n' "${depends[*]}" | sed 's/,/, /g'
}

# The GCC release whose libstdc++ has the newest symbol asked for.
libstdcxx() {
    local needed
    needed=$(newest GLIBCXX "$@")
    case $needed in
    3.4 | 3.4.? | 3.4.1? | 3.4.20) echo 4.9 ;;
    3.4.21) echo 5 ;;
    3.4.22) echo 6 ;;
    3.4.23 | 3.4.24) echo 7 ;;
    3.4.25) echo 8 ;;
    3.4.26 | 3.4.27) echo 9 ;;
    3.4.28) echo 10 ;; # JetPack 5 has this one
    *) fail "GLIBCXX_$needed is newer than JetPack 5" ;;
    esac
}

verb=${1:-}
[ $# -gt 1 ] || wrong_use "a verb and a file are needed"
shift
case $verb in
glibc) newest GLIBC "$@" ;;
gate) gate "$@" ;;
packages) packages "$@" ;;
*) wrong_use "no verb called $verb" ;;
esac
