#!/usr/bin/env bash
# fio writes a pattern that it can verify to a device, which is backed up; then it writes over half of it, and only what
# changed is backed up, by a list. Each snapshot is restored to another device, and fio verifies that one.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

size=$(pick 64 1024)
half=$((size / 2))
blocks=bssplit=512/10:4k/50:16k/20:64k/20

# pattern SUM OFFSET MIB DEVICE OPTIONS...: the same words write it and verify it. Each block says where it belongs and
# which sum it has, so two states have different kinds of sums.
pattern() {
    fio --name="$1" --offset="$2M" --size="$3M" --filename="$4" --rw=randwrite --"$blocks" --verify="$1" --verify_fatal=1 --verify_state_save=0 --ioengine=psync --end_fsync=1 --output="$work/fio" "${@:5}"
}
verifies() { pattern "$@" --verify_only 2>/dev/null >&2; }

make_device "$work/source" "${size}M" && source_device=$device
make_device "$work/target" "$((size + 1))M" && target_device=$device
quietly "$carrack" init
quietly pattern crc32c 0 "$size" "$source_device" --do_verify=0
quietly "$carrack" backup --device "$source_device" --change-id one
first=$(latest)
quietly pattern sha256 "$half" "$half" "$source_device" --do_verify=0
printf '%s %s\n' $((half << 20)) $((half << 20)) >"$work/changes"
quietly "$carrack" backup --device "$source_device" --changed-blocks "$work/changes" --change-id two
second=$(latest)

# The target is full of something else.
head -c "$((size << 20))" /dev/urandom >"$target_device"
restore "$first" "$target_device"
verifies crc32c 0 "$size" "$target_device" || fail "fio does not verify the first snapshot: $(cat "$work/fio")"
! verifies sha256 "$half" "$half" "$target_device" || fail "fio verifies what was not restored: it does not look"
restore "$second" "$target_device"
verifies sha256 "$half" "$half" "$target_device" || fail "fio does not verify the second snapshot: $(cat "$work/fio")"
cmp -n $((half << 20)) "$source_device" "$target_device" || fail "what was not in the list differs"

# A judge that overlooks a wrong byte is none.
printf '\377\0\377' | dd of="$target_device" bs=1 seek=$(((half << 20) + 1234567)) conv=notrunc,fsync status=none
! verifies sha256 "$half" "$half" "$target_device" || fail "fio does not see a byte that was changed"
say "fio verifies both states of $size MiB"
