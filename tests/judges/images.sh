#!/usr/bin/env bash
# File systems that are worked on: ext4 and xfs, frozen now and then and backed up, as a device (all of it, and by a list
# of changed blocks) and as a tree. What is restored is judged by e2fsck and xfs_repair, by cmp, and by rsync.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

rounds=${IMAGES_ROUNDS:-$(pick 2 10)}
quietly "$carrack" init

check_ext4() { e2fsck -f -n "$1"; }
check_xfs() { xfs_repair -n "$1"; }

# Deletes, renames, rewrites, patches, links and adds: other files in each round.
work_on() { # work_on DIRECTORY ROUND
    local index=0 file
    while IFS= read -r -d '' file; do
        index=$((index + 1))
        case $(((index + $2) % 60)) in
        7) rm -f "$file" ;;
        17) mv "$file" "$file.moved" ;;
        27) printf 'round %s\n' "$2" >>"$file" ;;
        37) printf 'patched in %s' "$2" | dd of="$file" bs=1 seek=100 conv=notrunc status=none ;;
        47) ln "$file" "$file.linked.$2" ;;
        57) fallocate --punch-hole --offset 4096 --length 8192 "$file" ;;
        esac
    done < <(find "$1" -type f -print0 | sort -z)
    mkdir "$1/new in $2"
    head -c 3000000 /dev/urandom >"$1/new in $2/random"
    ln -s "../new in $2" "$1/new in $2/link"
    setfattr -n user.round -v "$2" "$1/new in $2/random"
    setfacl -m "u:$((1000 + $2)):rx" "$1/new in $2"
}

# Extents in which two images differ, on a grid of 4 KiB, as a list of changed blocks.
changes() {
    { cmp -l "$1" "$2" || true; } | awk '{ block = int(($1 - 1) / 4096) } block != last || NR == 1 { print block * 4096, 4096; last = block }'
}

judge_kind() {
    local kind=$1 at=$work/$1 round target
    mkdir "$at" "$at/place" "$at/restored"
    truncate -s "$(pick 320 2048)M" "$at/image"
    "mkfs.$kind" -q "$at/image"
    make_device "$at/image" 0
    local source=$device
    make_device "$at/target" "$(stat -c %s "$at/image")" && target=$device
    head -c 50000000 /dev/urandom >"$target"
    mount -o noatime "$source" "$at/place"
    cp -a "$(pick /usr/include/linux /usr/share)" "$at/place/tree"
    for ((round = 0; round < rounds; round++)); do
        work_on "$at/place/tree" "$round"
        # The snapshot of a volume manager: what lies on the device while nothing is under way. Not the mounted device
        # itself, whose buffers hold bitmaps that ext4 has not written yet.
        fsfreeze --freeze "$at/place"
        cp --sparse=always "$at/image" "$at/kept.$round"
        quietly "$carrack" backup "$at/place/tree"
        fsfreeze --unfreeze "$at/place"
        trees[round]=$(latest)
        ln -f "$at/kept.$round" "$at/snapshot"
        if [ "$round" = 0 ]; then
            quietly "$carrack" backup --device "$at/snapshot" --change-id "$round"
        else
            changes "$at/kept.$((round - 1))" "$at/kept.$round" >"$at/changes"
            quietly "$carrack" backup --device "$at/snapshot" --changed-blocks "$at/changes" --change-id "$round"
        fi
        whole[round]=$(latest)
    done
    umount "$at/place"
    for ((round = 0; round < rounds; round++)); do
        restore "${whole[$round]}" "$target"
        cmp "$target" "$at/kept.$round" || fail "the $kind device of round $round differs"
        # A frozen file system is whole but for its journal; mounting plays it back.
        mount "$target" "$at/place"
        restore "${trees[$round]}:$at/place/tree" "$at/restored/tree" --delete --verify
        touch -r "$at/place/tree" "$at/restored/tree"
        same_tree "$at/place/tree" "$at/restored/tree"
        umount "$at/place"
        quietly "check_$kind" "$target"
    done
    say "$kind: $rounds states came back as devices and as trees"
}

trees=() whole=()
judge_kind ext4
judge_kind xfs
quietly "$carrack" check --read-data
