#!/usr/bin/env bash
# Runs every target under libFuzzer, one after the other; what ends one is kept and named, and the rest goes on.
#
#   FUZZ_SECONDS=600     for each target
#   FUZZ_TARGETS="page"  only these
#   FUZZ_KEEP=1          adds what led somewhere new to the inputs in corpus/, as little of it as there can be
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
seconds=${FUZZ_SECONDS:-600}
work=${CARRACK_CACHE:-$PWD/../../.cache}/fuzz
mkdir -p "$work/failures"
export CARGO_TARGET_DIR=${FUZZ_TARGET_DIR:-$work/target}
RUSTC_WRAPPER=$PWD/libfuzzer/instrument.sh cargo build --release --locked --manifest-path libfuzzer/Cargo.toml
program=$CARGO_TARGET_DIR/release/carrack-libfuzzer
failed=0
for target in ${FUZZ_TARGETS:-$(ls corpus)}; do
    export CARRACK_FUZZ_TARGET=$target
    mkdir -p "$work/$target"
    printf 'fuzz: %s for %s s\n' "$target" "$seconds"
    if ! "$program" "$work/$target" "corpus/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=768 \
        -malloc_limit_mb=160 -max_len=65536 -print_final_stats=1 -artifact_prefix="$work/failures/$target-" \
        >"$work/$target.log" 2>&1; then
        failed=1
        printf 'fuzz: %s FAILED; see %s\n' "$target" "$work/$target.log" >&2
    fi
    sed -n 's/^stat::number_of_executed_units: */fuzz: inputs tried: /p; s/^stat::peak_rss_mb: */fuzz: MiB at most: /p' \
        "$work/$target.log"
    if [ -n "${FUZZ_KEEP:-}" ]; then
        rm -rf "$work/merged" && mkdir "$work/merged"
        "$program" -merge=1 -max_len=4096 "$work/merged" "corpus/$target" "$work/$target" >/dev/null 2>&1
        "$program" -merge=1 -max_len=4096 "corpus/$target" "$work/merged" >/dev/null 2>&1
    fi
done
exit "$failed"
