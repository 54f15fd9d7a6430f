#!/usr/bin/env bash
# Every unit and black-box test. Those in real clusters wait more than they work: they run beside the others, and what they
# said is printed at the end. Fails if either does, but not before both have ended.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# All tests of these two packages, by the names of their targets: to choose the packages instead would compile much of what they
# use a second time, with fewer features. A test in their libraries would be left out by that.
targets=()
for path in tests/{cluster,volumes}/tests/*; do
    case $path in
    *.rs) targets+=(--test "$(basename "$path" .rs)") ;;
    *) [ ! -f "$path/main.rs" ] || targets+=(--test "$(basename "$path")") ;;
    esac
done
if grep -rnE '#\[(tokio::)?test\b' tests/{cluster,volumes}/src; then
    echo 'side_by_side: these tests would not run: move them below tests/' >&2
    exit 1
fi

said=$(mktemp)
# A process group of its own, so that it can be ended with all that it has started.
set -m
cargo test --locked --workspace "${targets[@]}" >"$said" 2>&1 &
clusters=$!
set +m
finish() {
    wait "$clusters"
    beside=$?
    cat "$said"
    rm -f "$said"
}
stop() {
    kill -TERM -- "-$clusters" 2>/dev/null
    finish
    exit 130
}
trap stop INT TERM HUP

cargo test --locked --workspace --exclude carrack-cluster --exclude carrack-volume-tests
others=$?

printf 'side_by_side: the others have ended with %s; the tests in clusters may take some minutes more\n' "$others"
finish
[ "$others" = 0 ] && [ "$beside" = 0 ]
