#!/usr/bin/env bash
# A database at work: pgbench writes while its directory is backed up, several times, from snapshots of the file system
# (btrfs), and once as it lies, between pg_backup_start and pg_backup_stop. Each is restored, starts, recovers, and
# agrees: checksums of all pages, pg_amcheck, and the sums of pgbench, which are equal after every transaction.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

rounds=${POSTGRES_ROUNDS:-$(pick 2 8)}
scale=$(pick 2 50)
seconds=$(pick 2 30)
bin=$(dirname "$(compgen -G '/usr/lib/postgresql/*/bin/pg_ctl' | sort -V | tail -n1)")

# The server refuses to run as root.
as_postgres() { (cd "$work" && exec setpriv --reuid postgres --regid postgres --init-groups env PATH="$bin:$PATH" "$@"); }
sql() { as_postgres psql -qAtX -v ON_ERROR_STOP=1 -h "$work/sockets" -p "$1" -d postgres -c "$2"; }

start() { # start PORT DIRECTORY
    quietly as_postgres pg_ctl -D "$2" -w -t 120 -l "$work/sockets/log.$1" -o "-p $1 -k $work/sockets -h ''" start
    running+=("$2")
}

stop() { # stop DIRECTORY
    quietly as_postgres pg_ctl -D "$1" -m fast -w stop
    local left=() each
    for each in "${running[@]}"; do [ "$each" = "$1" ] || left+=("$each"); done
    running=("${left[@]}")
}

running=()
bench=
stop_all() {
    [ -z "$bench" ] || kill "$bench" 2>/dev/null
    for each in "${running[@]}"; do as_postgres pg_ctl -D "$each" -m immediate stop >/dev/null; done
}
at_end+=(stop_all)

# Backs up what changes meanwhile, so the exit code may be 3; nothing else may be named.
alive() {
    local status=0
    "$carrack" backup --json "$@" >"$work/said" 2>&1 || status=$?
    [ "$status" = 0 ] || [ "$status" = 3 ] || { cat "$work/said" >&2 && fail "exit code $status of a live backup"; }
    ! grep '"message_type":"error"' "$work/said" | grep -v 'while it was read' >&2 || fail "something else went wrong"
}

# From here on no segment is renamed or removed: between listing and opening it would vanish, and the backup needs those since
# pg_backup_start. New ones come under another name first, which is left out, as are other files that live for a moment.
keep_log() { # keep_log SIZE
    local _
    sql 5001 "alter system set wal_keep_size = '$1'"
    sql 5001 'select pg_reload_conf()' >/dev/null
    for _ in $(seq 600); do
        [ "$(sql 5001 'show wal_keep_size')" != "$1" ] || return 0
        sleep 0.1
    done
    fail "the server does not take another wal_keep_size"
}

start_bench() {
    as_postgres pgbench -n -h "$work/sockets" -p 5001 -c 4 -j 2 -T 3600 postgres >"$work/bench" 2>&1 &
    bench=$!
}

# What all transactions of pgbench leave equal, and how many there were.
sums() {
    sql "$1" 'select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers),
        (select sum(bbalance) from pgbench_branches), (select coalesce(sum(delta), 0) from pgbench_history),
        (select count(*) from pgbench_history)'
}

# Starts a restored data directory and asks everybody; it has at least so many transactions.
judge_directory() { # judge_directory DIRECTORY LEAST
    local found
    rm -f "$1/postmaster.pid" "$1/postmaster.opts"
    start 5002 "$1"
    found=$(sums 5002)
    IFS='|' read -r accounts tellers branches history count <<<"$found"
    [ "$accounts" = "$tellers" ] && [ "$tellers" = "$branches" ] && [ "$branches" = "$history" ] ||
        fail "the sums differ: $found"
    [ "$count" -ge "$2" ] || fail "$count transactions came back, and $2 were committed before the backup"
    quietly as_postgres pg_amcheck -h "$work/sockets" -p 5002 -U postgres --heapallindexed --install-missing -d postgres
    stop "$1"
    quietly as_postgres pg_checksums --check -D "$1"
}

mkdir "$work/place" "$work/sockets"
truncate -s "$(pick 2 20)G" "$work/image"
quietly mkfs.btrfs "$work/image"
mount -o loop,noatime "$work/image" "$work/place"
btrfs subvolume create "$work/place/live" >/dev/null
chown postgres: "$work/place/live" "$work/sockets"
data=$work/place/live/data
quietly as_postgres initdb -D "$data" --data-checksums -A trust -U postgres --no-sync
# Small, so that recovery has work to do and segments are recycled.
printf '%s\n' 'max_wal_size = 64MB' 'min_wal_size = 32MB' 'wal_level = replica' 'shared_buffers = 32MB' \
    "archive_mode = off" 'checkpoint_timeout = 30s' >>"$data/postgresql.conf"
start 5001 "$data"
quietly as_postgres pgbench -i -q -s "$scale" -h "$work/sockets" -p 5001 postgres
quietly "$carrack" init
start_bench

names=() least=()
for ((round = 0; round < rounds; round++)); do
    sleep "$seconds"
    least+=("$(sql 5001 'select count(*) from pgbench_history')")
    btrfs subvolume snapshot -r "$work/place/live" "$work/place/snapshot.$round" >/dev/null
    # The same path each time, so that each backup has the one before as its parent.
    mkdir -p "$work/now"
    mount --bind "$work/place/snapshot.$round" "$work/now"
    quietly "$carrack" backup "$work/now/data"
    umount "$work/now"
    names+=("$(latest)")
done

# As it lies, while it changes: a mixture, which the log makes whole. What changed while it was read is named: code 3.
sleep "$seconds"
live_least=$(sql 5001 'select count(*) from pgbench_history')
keep_log "$(pick 1GB 4GB)"
coproc session { as_postgres psql -qAtX -v ON_ERROR_STOP=1 -h "$work/sockets" -p 5001 -d postgres 2>&1; }
printf '%s\n' "select pg_backup_start('carrack', true);" >&"${session[1]}"
read -r -t 120 _ <&"${session[0]}" || fail "pg_backup_start does not answer"
alive "$data" --exclude "$data/pg_wal/*" --exclude "$data/postmaster.pid" \
    --exclude "$data/pg_logical/replorigin_checkpoint.tmp" --exclude "$data/**/pg_internal.init*"
changed=$(grep -c '"message_type":"error"' "$work/said" || true)
live=$(latest)
printf '%s\n' "select labelfile from pg_backup_stop(false);" '\echo end' >&"${session[1]}"
label=
while read -r -t 120 line <&"${session[0]}" && [ "$line" != end ]; do label+=$line$'\n'; done
[[ $label == *"START WAL LOCATION"* ]] || fail "pg_backup_stop gives no label: $label"
printf '\\q\n' >&"${session[1]}"
wait "${session_PID:-}" 2>/dev/null || true
# The log up to here belongs to the backup.
alive "$data/pg_wal" --exclude "$data/pg_wal/xlogtemp.*"
log=$(latest)
kill "$bench" && { wait "$bench" || true; } && bench=
stop "$data"

for ((round = 0; round < rounds; round++)); do
    rm -rf "$work/restored"
    restore "${names[$round]}:$work/now/data" "$work/restored"
    # As it was, before the server touches it.
    same_tree "$work/place/snapshot.$round/data" "$work/restored"
    judge_directory "$work/restored" "${least[$round]}"
    say "snapshot $round: $count transactions, ${least[$round]} of them before"
done
restore "$live:$data" "$work/live"
restore "$log:$data/pg_wal" "$work/live/pg_wal"
printf '%s' "$label" | sed '/^$/d' >"$work/live/backup_label"
chown postgres: "$work/live/backup_label"
judge_directory "$work/live" "$live_least"
say "as it lay: $count transactions, $live_least of them before; $changed files named that changed while they were read"
