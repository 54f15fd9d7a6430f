#!/usr/bin/env bash
# Two versions of the program on one repository: both back up, forget, prune, check and restore in turn, and at the same
# time; whatever one wrote the other reads, and neither deletes what the other needs.
#
#   tests/judges/two_versions.sh [OTHER]    a commit of this repository, or a program; an early commit if nothing is said
#
# A commit is built once, from its archive; the program is kept below the cache. Part of make judges with the early commit, and
# run by hand before a release, with the last one.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# The last commit before there were controllers: it writes version 1 of the format, and builds fast.
early=7dc326c1793e8d73bc2d768745489a9484e3aefa
[ $# -le 1 ] || fail "name one commit or program: tests/judges/two_versions.sh v0.1.0"
set -- "${1:-$early}"
rounds=${ROUNDS:-$(pick 4 30)}

if [ -x "$1" ] && [ ! -d "$1" ]; then
    other=$(realpath "$1")
else
    commit=$(git -C "$root" rev-parse --verify --quiet "$1^{commit}") || fail "$1 is no program and no commit"
    built=$cache/judges/versions/$commit
    if [ ! -x "$built/carrack" ]; then
        say "building $commit"
        mkdir "$work/checkout"
        git -C "$root" archive "$commit" | tar -x -C "$work/checkout"
        (cd "$work/checkout" && CARGO_TARGET_DIR=$cache/judges/target cargo build -q --locked -p carrack-mover)
        mkdir -p "$built"
        cp "$cache/judges/target/debug/carrack" "$built/carrack"
    fi
    other=$built/carrack
fi
programs=("$carrack" "$other")

change() { # change ROUND
    mkdir -p "$work/source/$1"
    head -c 300000 /dev/urandom >"$work/source/$1/random"
    seq 1 "$((20000 + $1))" >"$work/source/numbers"
    find "$work/source" -name random | sort | awk -v gone=$(($1 % 3)) 'NR <= gone' | xargs -r rm
    # Both are to be found unchanged later, so times must be older than a run.
    touch -d '2020-01-01' "$work/source/$1/random"
}

quietly "${programs[0]}" init
declare -A kept
for ((round = 0; round < rounds; round++)); do
    writer=${programs[round % 2]}
    reader=${programs[(round + 1) % 2]}
    change "$round"
    quietly "$writer" backup "$work/source"
    snapshot=$(latest)
    kept[$snapshot]=$work/kept.$round
    cp -a "$work/source" "$work/kept.$round"
    # The other one backs up something else while this one prunes.
    "$reader" backup --stdin --stdin-filename "stream" </bin/sh >"$work/beside" 2>&1 &
    beside=$!
    quietly "$writer" forget --keep-last 3 --prune --max-unused 0 --wait 30s
    wait "$beside" || fail "a backup beside a prune of the other version: $(cat "$work/beside")"
    quietly "$reader" check --read-data
    for snapshot in "${!kept[@]}"; do
        "$reader" snapshots --json | grep -q "\"$snapshot\"" || { unset "kept[$snapshot]" && continue; }
        rm -rf "$work/restored"
        quietly "$reader" restore "$snapshot:$work/source" --target "$work/restored"
        touch -r "${kept[$snapshot]}" "$work/restored"
        same_tree "${kept[$snapshot]}" "$work/restored"
    done
    [ ${#kept[@]} -ge 1 ] || fail "no snapshot is left"
    say "round $round: $("$writer" --version) wrote and pruned, $("$reader" --version) read ${#kept[@]} snapshots"
done
for program in "${programs[@]}"; do quietly "$program" prune --fence-after 1s; done
quietly "${programs[0]}" check --read-data
