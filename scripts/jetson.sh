#!/usr/bin/env bash
# From this checkout to a Jetson: cross-compile, test under emulation, package, deploy, flash.
#
#   scripts/jetson.sh [--dry-run] COMMAND [ARGUMENT...]
#
#   setup                  fetch what the commands below need into .cache/jetson; no root, seconds when repeated
#   build                  the release binary for aarch64, linked for glibc 2.28 (JetPack 5, 6 and 7)
#   test                   run it under emulation on models/pi0-tiny and compare with this machine's output
#   deb                    Debian packages in target/jetson/deb
#   deploy HOST            install the package on a running Jetson over ssh and check it there
#   rootfs L4T_DIR         install the package into Linux_for_Tegra/rootfs, before flashing
#   image L4T_DIR BOARD    mass-flash package for production, with no board attached
#   flash L4T_DIR BOARD    flash the one board that is in recovery mode
#   boards                 the boards that image and flash know
#
#   --dry-run              print the commands instead of running them
#   COMMAND --help         what that command takes
#
# docs/jetson.md tells the whole story.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

arguments=()
for argument; do
    case $argument in
    --dry-run) export PI0_EDGE_DRY_RUN=1 ;;
    *) arguments+=("$argument") ;;
    esac
done
set -- "${arguments[@]}"

case ${1:-} in
setup | build | test | deb | deploy | rootfs | image | flash | boards)
    command=$1
    shift
    exec "$here/jetson/$command.sh" "$@"
    ;;
'' | -h | --help | help)
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    ;;
*)
    echo "jetson.sh: no command called $1; scripts/jetson.sh --help lists them" >&2
    exit 2
    ;;
esac
