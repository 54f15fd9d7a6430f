#!/usr/bin/env bash
# fsx works on a file; now and then it is held, and the file is backed up, as a file and as an image, with a copy kept.
# Every snapshot restored must be its copy, in place over the one before too.
#
#   tests/judges/fsx.sh      rounds and seed: FSX_ROUNDS, FSX_SEED
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

rounds=${FSX_ROUNDS:-$(pick 6 60)}
seed=${FSX_SEED:-$RANDOM$RANDOM}
say "seed $seed, $rounds rounds"

# On a file system that punches holes and shares extents.
truncate -s 512M "$work/image"
mkfs.xfs -q "$work/image"
mkdir "$work/place" "$work/kept" "$work/artifacts"
mount -o loop "$work/image" "$work/place"
mkdir "$work/place/tree"
file=$work/place/tree/worked-on
cat >"$work/fsx.toml" <<'CONFIG'
flen = 12582912
[opsize]
max = 262144
[weights]
close_open = 1
read = 3
write = 10
mapread = 3
mapwrite = 10
invalidate = 1
truncate = 2
fsync = 1
posix_fallocate = 2
punch_hole = 4
copy_file_range = 4
CONFIG

quietly "$carrack" init
"$cache/fsx/bin/fsx" -q -S "$seed" -f "$work/fsx.toml" -P "$work/artifacts" "$file" &
fsx=$!
disown "$fsx"
stop_fsx() { kill -KILL "$fsx" 2>/dev/null; }
at_end+=(stop_fsx)

# Holds fsx: it is told to stop, and has stopped when each of its threads is back from what it does in the kernel.
hold() {
    local states _
    kill -STOP "$fsx" 2>/dev/null || fail "fsx ended by itself: it found something wrong"
    for _ in $(seq 6000); do
        states=$(grep -h '^State:' "/proc/$fsx/task"/*/status 2>/dev/null || true)
        [ -n "$states" ] || fail "fsx ended by itself: it found something wrong"
        grep -qv 'T (stopped)' <<<"$states" || return 0
        sleep 0.01
    done
    fail "fsx does not stop"
}

# Lets fsx work until the file is another one than in the round before, and holds it then.
another_state() { # another_state ROUND
    local _
    for _ in $(seq 200); do
        sleep 0.3
        hold
        # A program that is just being read from the disk has made no file yet, and one that gets no processor changes none.
        if [ -s "$file" ] && ! cmp -s "$file" "$work/kept/$(($1 - 1))"; then return 0; fi
        kill -CONT "$fsx"
    done
    fail "fsx does not work on the file: it is as it was in round $(($1 - 1))"
}

trees=() images=()
for ((round = 0; round < rounds; round++)); do
    another_state "$round"
    cp --sparse=always "$file" "$work/kept/$round"
    quietly "$carrack" backup "$work/place/tree"
    trees+=("$(latest)")
    quietly "$carrack" backup --device "$file"
    images+=("$(latest)")
    cmp "$file" "$work/kept/$round" || fail "the file changed although fsx was held"
    kill -CONT "$fsx"
done
kill -0 "$fsx" 2>/dev/null || fail "fsx ended by itself: it found something wrong"

distinct=$(cd "$work/kept" && sha256sum -- * | cut -d' ' -f1 | sort -u | wc -l)
[ "$distinct" = "$rounds" ] || fail "fsx did not work on the file: $distinct states in $rounds rounds"
# Newest first and then forwards, so that each is restored over another one.
for round in $(seq $((rounds - 1)) -1 0) $(seq 0 $((rounds - 1))); do
    restore "${trees[$round]}:$work/place/tree" "$work/place/restored"
    cmp "$work/kept/$round" "$work/place/restored/worked-on" || fail "round $round is not what was backed up"
done
# Images too: the target becomes longer and shorter.
for round in $(seq 0 $((rounds - 1))); do
    restore "${images[$round]}" "$work/place/image"
    cmp "$work/kept/$round" "$work/place/image" || fail "the image of round $round is not what was backed up"
done
quietly "$carrack" check --read-data
say "$((2 * rounds)) snapshots of a file that fsx worked on are what they were"
