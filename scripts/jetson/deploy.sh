#!/usr/bin/env bash
# Installs the packages on a running Jetson over ssh and checks them there: the everyday path.
#
#   scripts/jetson.sh deploy HOST [OPTION...]
#
#   --bundle DIR             also copy this bundle to /var/lib/pi0-edge/bundles and prepare it for the device; it takes
#                            the place of one of that name as a whole, and what runs goes on with the one before
#   --dev                    also libpi0-edge-dev, to build control programs in C and C++ there
#   --without-onnxruntime    leave out the CPU build of ONNX Runtime, on a device that has its own
#
# HOST is what ssh takes, for instance robot@192.168.55.1. The user there needs sudo. No service is started or stopped.
. "$(dirname "$0")/lib.sh"
case ${1:-} in -h | --help) usage && exit ;; -* | '') wrong_use "the host is missing" ;; esac
host=$1
shift
bundles=() packages=(pi0-edge pi0-edge-onnxruntime) dev=()
while [ $# -gt 0 ]; do
    case $1 in
    --bundle)
        [ -f "${2:-}/manifest.json" ] || fail "${2:-} has no manifest.json: is it a bundle?"
        bundles+=("$(cd "$2" && pwd)") && shift
        ;;
    --dev) dev=(libpi0-edge-dev) ;;
    --without-onnxruntime) packages=(pi0-edge) ;;
    *) wrong_use "no argument called $1" ;;
    esac
    shift
done

packages+=("${dev[@]}")

# One connection for everything: one password at most.
options=() terminal=() shell=() progress=()
[ ! -t 0 ] || terminal=(-t)
[ ! -t 1 ] || progress=(--info=progress2)
if [ -z "$dry_run" ]; then
    sockets=$(mktemp -d)
    options=(-o ControlMaster=auto -o "ControlPath=$sockets/%C" -o ControlPersist=60)
    shell=(-e "ssh $(quoted "${options[@]}")")
    trap 'ssh "${options[@]}" -O exit "$host" 2>/dev/null || true; rm -rf "$sockets"' EXIT
fi
remote() { run ssh "${options[@]}" "${terminal[@]}" "$host" "$1"; }
# shellcheck disable=SC2029  # the command is for the other side
answer() { ssh "${options[@]}" "$host" "$1"; }

arch=arm64 rsync=yes
if [ -z "$dry_run" ]; then
    arch=$(answer "dpkg --print-architecture") || fail "cannot ask $host for its architecture by ssh"
    say "$host is $arch, $(answer "head -1 /etc/nv_tegra_release 2>/dev/null || echo 'not a Jetson'")"
    command -v rsync >/dev/null && answer "command -v rsync" >/dev/null || rsync=
fi
debs=()
for package in "${packages[@]}"; do
    deb=$(newest_deb "$package" "$arch")
    debs+=("$deb")
done

there=.pi0-edge-packages # in the home directory
remote "mkdir -p $there"
run scp -q "${options[@]}" "${debs[@]}" "$host:$there/"
remote "sudo apt-get install --yes --reinstall --allow-downgrades $(quoted "${debs[@]/#*\//./$there/}")"
remote "rm -r $there"
remote "pi0-edge --version"
remote "pi0-edge doctor" || say "doctor found something in the way: see above"

# Files that a runtime has open are never written to: a bundle is copied beside its place and then renamed.
for bundle in "${bundles[@]}"; do
    name=$(basename "$bundle") bundles_there=/var/lib/pi0-edge/bundles
    place=$bundles_there/$name new=$bundles_there/.new old=$bundles_there/.old
    remote "sudo rm -rf $new $old && sudo mkdir -p $new $old && sudo chown \"\$(id -un)\" $new"
    if [ -n "$rsync" ]; then
        run rsync -rtLs --copy-dest="$place/" "${progress[@]}" "${shell[@]}" "$bundle/" "$host:$new/$name/"
    else
        run scp -q -r "${options[@]}" "$bundle" "$host:$new/"
    fi
    remote "sudo chown -R root:root $new && sudo chmod -R u=rwX,go=rX $new"
    at=$(quoted "$place")
    remote "{ [ ! -e $at ] || sudo mv $at $old; } && sudo mv -T $(quoted "$new/$name") $at && sudo rm -rf $new $old"
    remote "sudo /usr/lib/pi0-edge/prepare $(quoted "$place")"
done
say "installed on $host: ${packages[*]}${bundles[*]:+, bundles ${bundles[*]##*/}}"
