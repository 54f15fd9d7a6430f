#!/usr/bin/env bash
# Backs up a real tree, changes part of it, backs it up again, restores both snapshots and compares every byte and
# attribute. Needs a built `carrack` (CARRACK), bash, GNU coreutils and rsync; runs best as root.
#
#   DEMO_TREE   tree to back up (default /usr/share)
#   DEMO_DIR    where to work (default: a new directory below TMPDIR); removed at the end unless DEMO_KEEP is set
set -euo pipefail

tree=$(realpath "${DEMO_TREE:-/usr/share}")
carrack=$(realpath "${CARRACK:-target/release/carrack}")
work=$(mktemp -d "${DEMO_DIR:-${TMPDIR:-/tmp}}/carrack-demo.XXXXXX")
source=$work/source
export CARRACK_REPOSITORY=$work/repository CARRACK_PASSWORD=demonstration

trap 'status=$?; [ -n "${DEMO_KEEP:-}" ] || rm -rf "$work"; exit $status' EXIT

say() { printf '\n\033[1m%s\033[0m\n' "$1"; }

needed=$(du -sk "$tree" | cut -f1)
free=$(df -k --output=avail "$work" | tail -n1)
if [ $((needed * 5 / 2)) -gt "$free" ]; then
    printf 'demo: %s needs about %d MiB in %s, which has %d MiB\n' \
        "$tree" $((needed * 5 / 2048)) "$work" $((free / 1024)) >&2
    printf 'demo: choose another place or a smaller tree:  make demo DEMO_DIR=/path DEMO_TREE=/usr/include\n' >&2
    exit 1
fi

seconds_since() { awk -v from="$1" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.2f", to - from }'; }
content_bytes() { find "$1" -type f -printf '%s\n' | awk '{ sum += $1 } END { printf "%d", sum }'; }
stored_bytes() { du -sb --apparent-size "$CARRACK_REPOSITORY" | cut -f1; }

# Things that a plain copy easily loses.
add_awkward_things() {
    local at=$source/awkward
    mkdir -p "$at/empty directory" "$at/deep/er/and/deeper"
    printf 'one inode, two names' >"$at/first"
    ln "$at/first" "$at/deep/second"
    ln -s 'a target that is not there' "$at/dangling"
    mkfifo "$at/pipe"
    printf 'x' >"$at/$(printf 'not\377utf8 \n name')"
    truncate -s 8M "$at/sparse"
    printf 'end' | dd of="$at/sparse" bs=1 seek=5M conv=notrunc status=none
    : >"$at/setuid"
    chmod 4750 "$at/setuid"
    touch -d '1969-12-31 23:59:58.123456789 UTC' "$at/before the epoch"
    [ "$(id -u)" != 0 ] || { chown 12345:54321 "$at/setuid" && chmod 4750 "$at/setuid"; }
    [ "$(id -u)" != 0 ] || mknod "$at/null" c 1 3
    ! command -v setfattr >/dev/null || setfattr -n user.comment -v 'kept' "$at/first" 2>/dev/null || true
    ! command -v setfacl >/dev/null || setfacl -m u:4242:rx "$at/deep" 2>/dev/null || true
}

# Deletes, renames, rewrites, patches and adds: one file of each thirty.
change_some() {
    local index=0 file
    while IFS= read -r -d '' file; do
        index=$((index + 1))
        case $((index % 150)) in
        30) rm -f "$file" ;;
        60) mv "$file" "$file.renamed" ;;
        90) date >>"$file" ;;
        120) printf 'patched' | dd of="$file" bs=1 conv=notrunc status=none ;;
        149) cp "$file" "$file.copy" ;;
        esac
    done < <(find "$source/tree" -type f -print0 | sort -z)
    head -c 3000000 /dev/urandom >"$source/tree/new and random"
}

backup() { # backup LABEL
    local from=$EPOCHREALTIME before bytes
    before=$(stored_bytes)
    "$carrack" backup "$source"
    took=$(seconds_since "$from")
    bytes=$(content_bytes "$source")
    summary+=("$(awk -v what="$1" -v b="$bytes" -v s="$(($(stored_bytes) - before))" -v t="$took" 'BEGIN {
        printf "%-16s %9.1f MiB in %7.2f s %9.1f MiB/s   %9.1f MiB added", what, b/1048576, t, b/1048576/t, s/1048576 }')")
}

restore() { # restore SNAPSHOT TARGET LABEL
    local from=$EPOCHREALTIME bytes
    "$carrack" restore "$1" --target "$2"
    took=$(seconds_since "$from")
    bytes=$(content_bytes "$2")
    summary+=("$(awk -v what="$3" -v b="$bytes" -v t="$took" 'BEGIN {
        printf "%-16s %9.1f MiB in %7.2f s %9.1f MiB/s", what, b/1048576, t, b/1048576/t }')")
}

compare() { # compare EXPECTED RESTORED
    local differences=$work/differences
    rsync -nac --delete -HAXS --modify-window=-1 --itemize-changes "$1/" "$2/" >"$differences"
    if [ -s "$differences" ]; then
        printf 'demo: the restored tree differs from %s:\n' "$1" >&2
        head -n 20 "$differences" >&2
        exit 1
    fi
    printf 'same: %s entries, every byte and attribute\n' "$(find "$2" | wc -l)"
}

summary=()
say "A real tree: $tree"
mkdir "$source"
cp -a "$tree" "$source/tree"
add_awkward_things
printf '%s files, %s MiB\n' "$(find "$source" -type f | wc -l)" $(($(content_bytes "$source") >> 20))

say 'A new repository'
"$carrack" init

say 'First backup'
backup 'first backup'
first_bytes=$(content_bytes "$source")

say 'Unchanged backup'
backup 'unchanged backup'

say 'Changing some of it'
rm -rf "$work/before"
mv "$source" "$work/before"
cp -a --reflink=auto "$work/before" "$source"
change_some

say 'Backup of the changed tree'
backup 'changed backup'
"$carrack" snapshots

say 'Restoring the newest snapshot and comparing'
restore latest "$work/newest" 'restore'
compare "$source" "$work/newest$source"

say 'Restoring the first snapshot and comparing'
rm -rf "$work/newest"
oldest=$("$carrack" snapshots --json | tr ',{' '\n\n' | sed -n 's/.*"session": *"\([^"]*\)".*/\1/p' | head -n1)
restore "$oldest" "$work/oldest" 'restore of first'
compare "$work/before" "$work/oldest$source"

say 'Checking all of the repository'
"$carrack" check --read-data

say 'Summary'
printf '%s\n' "${summary[@]}"
awk -v first="$first_bytes" -v last="$(content_bytes "$source")" -v stored="$(stored_bytes)" 'BEGIN {
    total = 2 * first + last
    printf "%d MiB of three snapshots are kept in %d MiB: %.1f to 1\n", total/1048576, stored/1048576, total/stored }'
