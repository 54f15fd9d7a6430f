#!/usr/bin/env bash
# A thousand snapshots of one source: each a little different, some of them restored and compared before and after most are
# forgotten and pruned. Says how long the last backup takes beside the first ones, so that growth shows.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

count=${SNAPSHOTS:-$(pick 20 1000)}
every=$((count / 10))
mkdir -p "$work/source/some" "$work/kept"
for ((number = 0; number < 200; number++)); do printf 'file %d\n' "$number" >"$work/source/some/$number"; done

milliseconds() { printf '%s' $(($(date +%s%N) / 1000000)); }

quietly "$carrack" init
names=() first=0 last=0
for ((round = 0; round < count; round++)); do
    head -c 20000 /dev/urandom >"$work/source/some/$((round % 200))"
    date +%N >"$work/source/$((round % 50))"
    began=$(milliseconds)
    quietly "$carrack" backup "$work/source"
    took=$(($(milliseconds) - began))
    if [ "$round" -lt 10 ]; then first=$((first + took)); fi
    if [ "$round" -ge $((count - 10)) ]; then last=$((last + took)); fi
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

for round in "${!names[@]}"; do compare "$round"; done
there=$("$carrack" snapshots --json | grep -c '"message_type":"snapshot"')
[ "$there" = "$count" ] || fail "$there snapshots of $count are there"
for round in "${!names[@]}"; do quietly "$carrack" forget --pin "${names[$round]}"; done
before=$(du -sk "$CARRACK_REPOSITORY" | cut -f1)
quietly "$carrack" forget --keep-last 1 --prune --max-unused 0
quietly "$carrack" check --read-data
for round in "${!names[@]}"; do compare "$round"; done
say "$count snapshots: ten backups took $first ms at first and $last ms at last; $before KiB, $(du -sk "$CARRACK_REPOSITORY" | cut -f1) after pruning"
