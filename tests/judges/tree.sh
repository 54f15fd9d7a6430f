#!/usr/bin/env bash
# A tree of what is rare: a directory of 200 000 entries (20 000 in the short share), names of 255 bytes and of any bytes, paths of 10 000 bytes, times
# from 1901 to 2446, 10 000 names of one file, every mode, attributes of 64 KiB, lists of rights, capabilities, flags,
# holes. As root all of it comes back, from ext4 to xfs and, in full size, the other way. As an ordinary user, whatever
# cannot be read or kept is named and counted; what tree.py finds different and nobody named is a failure.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

entries=${TREE_ENTRIES:-$(pick 20000 200000)}
tree() { python3 "$root/tests/judges/tree.py" "$@"; }

mounted() { # mounted KIND NAME
    truncate -s 20G "$work/$2.image"
    case $1 in
    ext4) mkfs.ext4 -q -F -b 4096 -N $((entries * 2 + 100000)) -E lazy_itable_init=1 -O ea_inode "$work/$2.image" ;;
    xfs) mkfs.xfs -q "$work/$2.image" ;;
    esac
    mkdir "$work/$2"
    mount -o loop "$work/$2.image" "$work/$2"
    chmod 755 "$work/$2"
}

unlock() { chattr -R -f -ia "$@" || true; }
unlock_all() { unlock "$work"/*/tree/flags "$work"/*/*/tree/flags 2>/dev/null; }
at_end+=(unlock_all)

round_trip() { # round_trip FROM TO
    mounted "$1" source
    mounted "$2" target
    tree make "$work/source/tree" "$entries"
    quietly "$carrack" init
    quietly "$carrack" backup "$work/source/tree"
    restore "latest:$work/source/tree" "$work/target/tree"
    tree compare "$work/source/tree" "$work/target/tree"
    rsync_agrees
    # Onto what is there: only files of several names are made anew, and nothing gets worse.
    restore "latest:$work/source/tree" "$work/target/tree" --delete --json
    grep -q '"files_new":0,.*"deleted":0,' "$work/said" || fail "a second restore found work to do: $(tail -n1 "$work/said")"
    tree compare "$work/source/tree" "$work/target/tree" >/dev/null
    say "$1 to $2: everything came back"
}

# Somebody else's opinion than that of tree.py, which made the tree. Not asked of rsync: paths longer than it can open, and four
# tebibytes of zeros that it would read; nor does it look at flags and at where holes are, which tree.py compares.
rsync_agrees() {
    touch -r "$work/source/tree" "$work/target/tree"
    same_tree "$work/source/tree" "$work/target/tree" --exclude=/deep --exclude=/sparse/tebibytes
}

nobody() {
    local path=$CARRACK_REPOSITORY
    setpriv --reuid 65534 --regid 65534 --clear-groups env CARRACK_REPOSITORY="${other:-$path}" "$work/carrack" "$@"
}

partly() { # partly COMMAND...: the exit code must be 3
    local status=0
    "$@" >"$work/said" 2>&1 || status=$?
    [ "$status" = 3 ] || { tail -n 20 "$work/said" >&2 && fail "exit code $status and not 3 of: $*"; }
}

ordinary_user() {
    cp "$carrack" "$work/carrack"
    chmod 755 "$work/carrack"
    chmod 644 "$work/secret"
    # What root backed up, restored by somebody who may not make devices, give files away or lock them.
    chmod -R a+rX "$CARRACK_REPOSITORY"
    mkdir "$work/target/theirs"
    chown 65534:65534 "$work/target/theirs"
    # Part by part: of more than a thousand problems the others are counted and not named, as in the last two of these.
    local part
    for part in attributes flags sparse deep nodes links modes many; do
        partly nobody restore "latest:$work/source/tree/$part" --json --target "$work/target/theirs/tree"
        tree compare "$work/source/tree/$part" "$work/target/theirs/tree" --named "$work/said"
        rm -rf "$work/target/theirs/tree"
    done
    # What they may read themselves, backed up by them and restored by root.
    other=$work/theirs
    mkdir "$other"
    chown 65534:65534 "$other"
    nobody init >/dev/null 2>&1
    # There is one part of which they may read all: that is whole, and has no problem.
    quietly nobody backup "$work/source/tree/many"
    quietly env CARRACK_REPOSITORY="$other" "$carrack" restore "latest:$work/source/tree/many" --target "$work/target/many"
    tree compare "$work/source/tree/many" "$work/target/many"
    partly nobody backup --json "$work/source/tree" --exclude "$work/source/tree/many"
    cp "$work/said" "$work/said.backup"
    quietly env CARRACK_REPOSITORY="$other" "$carrack" restore "latest:$work/source/tree" --target "$work/target/read"
    tree compare "$work/source/tree" "$work/target/read" --named "$work/said.backup" many
    say "an ordinary user: all that could not be read or kept was named"
}

round_trip ext4 xfs
ordinary_user
if [ "$JUDGES_SIZE" = full ]; then
    unlock_all
    umount "$work/source" "$work/target"
    rm -rf "$work/repository" "$work/theirs" "$work"/*.image "$work/source" "$work/target"
    round_trip xfs ext4
fi
