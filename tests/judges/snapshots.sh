#!/usr/bin/env bash
# A thousand snapshots of one source (60 in the short share): each a little different, some of them restored and compared before
# and after most are forgotten and pruned. A backup may not take longer because many were made before: it fails if the last ones
# take more than twice as long as those into a repository with few, which are made in turn with them.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

count=${SNAPSHOTS:-$(pick 60 1000)}
[ "$count" -ge 30 ] || fail "SNAPSHOTS is at least 30, not $count"
every=$((count / 10))
# How many of the last are compared, by their medians.
compared=20
[ "$count" -ge $((2 * compared)) ] || compared=$((count / 2))
mkdir -p "$work/source/some" "$work/kept"
for ((number = 0; number < 200; number++)); do printf 'file %d\n' "$number" >"$work/source/some/$number"; done

milliseconds() { printf '%s' $(($(date +%s%N) / 1000000)); }
median() { printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p"; }

timed() { # timed REPOSITORY: a backup; its milliseconds are in $took then
    local began
    began=$(milliseconds)
    quietly env CARRACK_REPOSITORY="$1" "$carrack" backup "$work/source"
    took=$(($(milliseconds) - began))
}

few=$work/few
quietly "$carrack" init
quietly env CARRACK_REPOSITORY="$few" "$carrack" init
names=() among_few=() among_many=()
for ((round = 0; round < count; round++)); do
    head -c 20000 /dev/urandom >"$work/source/some/$((round % 200))"
    date +%N >"$work/source/$((round % 50))"
    if [ "$round" -lt $((count - compared)) ]; then
        quietly "$carrack" backup "$work/source"
    else
        # In turn: how fast the machine is differs from minute to minute.
        timed "$few"
        among_few+=("$took")
        timed "$CARRACK_REPOSITORY"
        among_many+=("$took")
    fi
    if [ $((round % every)) = 0 ] || [ "$round" = $((count - 1)) ]; then
        names[round]=$(latest)
        cp -a "$work/source" "$work/kept/$round"
    fi
done

compare() { # compare ROUND
    rm -rf "$work/restored"
    restore "${names[$1]}:$work/source" "$work/restored"
    touch -r "$work/kept/$1" "$work/restored"
    same_tree "$work/kept/$1" "$work/restored"
}

first=$(median "${among_few[@]}") last=$(median "${among_many[@]}")
[ "$last" -le $((2 * first)) ] || fail "a backup takes $last ms after $count others, and $first ms after few"

for round in "${!names[@]}"; do compare "$round"; done
there=$("$carrack" snapshots --json | grep -c '"message_type":"snapshot"')
[ "$there" = "$count" ] || fail "$there snapshots of $count are there"
for round in "${!names[@]}"; do quietly "$carrack" forget --pin "${names[$round]}"; done
before=$(du -sk "$CARRACK_REPOSITORY" | cut -f1)
quietly "$carrack" forget --keep-last 1 --prune --max-unused 0
quietly "$carrack" check --read-data
for round in "${!names[@]}"; do compare "$round"; done
after=$(du -sk "$CARRACK_REPOSITORY" | cut -f1)
say "$count snapshots: a backup took $first ms after few others and $last ms at last; $before KiB, $after after pruning"
