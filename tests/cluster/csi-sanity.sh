#!/usr/bin/env bash
# Lets csi-sanity judge the test bed's CSI driver, once for each kind of volume, and checks that the driver leaves no
# mount, loop device or file behind. As root, with btrfs-progs, xfsprogs, e2fsprogs and util-linux; a minute or two.
#
#   csi-sanity.sh [btrfs|ext4|xfs|block|nosnapshots]...   (default: all)
#
#   CSI_SANITY   a built csi-sanity (default: below CARRACK_CACHE, as build.sh puts it; else it is built there)
#   CSI_DRIVER   a built carrack-test-csi (default: built from csi-driver/)
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
cache=${CARRACK_CACHE:-$(realpath ../..)/.cache}
sanity=${CSI_SANITY:-$cache/cluster/bin/csi-sanity}
work=$(mktemp -d "${TMPDIR:-/tmp}/csi-sanity.XXXXXX")
driver_pid=
judged=

fail() {
    printf 'csi-sanity: %s\n' "$1" >&2
    exit 1
}

stop_driver() {
    [ -n "$driver_pid" ] || return 0
    kill -TERM "$driver_pid" 2>/dev/null || true
    wait "$driver_pid" || printf 'csi-sanity: the driver ended with %d; its log is below\n' $? >&2
    driver_pid=
}

finish() {
    local status=$?
    stop_driver
    if [ "$status" -ne 0 ]; then
        tail -n 25 "$work/$judged"-*.log >&2 2>/dev/null || true
    fi
    if grep -qF "$work" /proc/self/mountinfo; then
        printf 'csi-sanity: kept %s: something is still mounted there\n' "$work" >&2
    else
        rm -rf "$work"
    fi
    exit "$status"
}
trap finish EXIT

[ "$(id -u)" = 0 ] || fail 'mounting needs root: run it as root'
for program in mkfs.btrfs mkfs.xfs mkfs.ext4 losetup blkid; do
    command -v "$program" >/dev/null || fail "$program is missing: apt-get install -y btrfs-progs xfsprogs e2fsprogs util-linux"
done

driver=${CSI_DRIVER:-$work/carrack-test-csi}
if [ -z "${CSI_DRIVER:-}" ]; then
    (cd csi-driver && nice -n 5 go build -trimpath -o "$driver" .)
fi
if ! [ -x "$sanity" ]; then
    [ -z "${CSI_SANITY:-}" ] || fail "CSI_SANITY is $sanity, and there is no such program: name a built one or unset it"
    CARRACK_CACHE=$cache ./build.sh csi-test
fi

# The kernel puts the end of a device off while anybody has it open, and whoever watches the devices of a machine opens each
# that comes for a moment.
let_go() { # let_go DIRECTORY: waits until no loop device has a file of it; lists those that have
    local _ devices=
    for _ in $(seq 600); do
        devices=$(losetup --list --noheadings --output NAME,BACK-FILE | grep -F "$1" || true)
        [ -n "$devices" ] || return 0
        sleep 0.1
    done
    printf '%s\n' "$devices"
    return 1
}

# judge KIND: one run of csi-sanity on a driver of its own.
judge() {
    local kind=$1 at=$work/$1 access=mount driver_options=() status=0
    judged=$kind
    mkdir -p "$at"
    case $kind in
        block) access=block; : >"$at/parameters.yaml" ;;
        nosnapshots) printf 'filesystem: ext4\n' >"$at/parameters.yaml"; driver_options=(--no-snapshots) ;;
        btrfs | ext4 | xfs) printf 'filesystem: %s\n' "$kind" >"$at/parameters.yaml" ;;
        *) fail "no kind $kind: there are btrfs ext4 xfs block nosnapshots" ;;
    esac
    "$driver" --endpoint "unix://$at/csi.sock" --state "$at/state" --node here --name test.csi.carrack.dev \
        --registration-dir "$at/registry" --faults "$at/faults.json" "${driver_options[@]}" 2>"$work/$kind-driver.log" &
    driver_pid=$!
    for _ in $(seq 600); do
        [ -S "$at/csi.sock" ] && break
        kill -0 "$driver_pid" 2>/dev/null || fail "the driver did not start for $kind"
        sleep 0.1
    done
    "$sanity" --csi.endpoint "$at/csi.sock" --csi.mountdir "$at/mount" --csi.stagingdir "$at/staging" \
        --csi.testvolumeparameters "$at/parameters.yaml" --csi.testvolumeaccesstype "$access" \
        --csi.testvolumesize $((2 << 30)) --csi.testvolumeexpandsize $((3 << 30)) \
        --ginkgo.no-color >"$work/$kind-sanity.log" 2>&1 || status=$?
    printf '%s:\n' "$kind"
    grep -E '^(Ran |SUCCESS!|FAIL!|PASS$|FAIL$)|^ +\[FAIL\]' "$work/$kind-sanity.log" | sed 's/^ */    /' || true
    stop_driver
    if grep -F "$at" /proc/self/mountinfo; then fail "$kind left the mounts above"; fi
    let_go "$at" || fail "$kind left the loop devices above"
    if [ "$status" -ne 0 ]; then fail "csi-sanity found faults with $kind"; fi
    if [ -e "$at/csi.sock" ] || [ -n "$(ls -A "$at/registry")" ]; then fail "$kind left sockets in $at"; fi
}

kinds=("$@")
[ ${#kinds[@]} -gt 0 ] || kinds=(btrfs ext4 xfs block nosnapshots)
for kind in "${kinds[@]}"; do judge "$kind"; done
