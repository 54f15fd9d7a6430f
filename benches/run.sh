#!/usr/bin/env bash
# The whole benchmark: micro benchmarks, then the scenarios beside other tools in a directory and on a real S3 server.
# Started again after it was broken off, it goes on with the scenario that was under way.
#
#   benches/run.sh [OPTION of scenario ...]     options given here come after the script's own
#
# CARRACK_CACHE      caches, datasets, repositories and results (default .cache)
# BENCH_SCALE        size of the datasets (1); BENCH_RUNS how often everything is measured (1)
# BENCH_STORES       local,s3; BENCH_DATASETS random,vm,tree,small,db
# BENCH_S3           minio, garage or versitygw; what is not there is built
# BENCH_BEFORE       an earlier state of this repository, as git names it: it is built and measured beside today's
# BENCH_MICRO        no: leave the micro benchmarks out; BENCH_FRESH yes: forget a run that was broken off
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARRACK_CACHE=${CARRACK_CACHE:-$PWD/.cache}
export PATH=$PATH:$HOME/.cargo/bin:/usr/local/go/bin

server=${BENCH_S3:-minio}
home=$CARRACK_CACHE/bench
results=$home/results
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$results"

# A peer that cannot be had stands in the tables as missing; that is no reason to measure nothing.
wanted=(restic rustic borg "$server")
mapfile -t options < <(benches/peers.sh "$home/peers" "${wanted[@]}" || true)
tools=()
for option in "${options[@]}"; do
    case $option in
    "--tool-path "* | "--s3-server $server="*) tools+=("${option%% *}" "${option#* }") ;;
    esac
done

cargo build --release --locked -p carrack-mover
cargo build --release --locked -p carrack-benches --bins

if [ -n "${BENCH_BEFORE:-}" ]; then
    before=$home/before
    rm -rf "$before"
    mkdir -p "$before"
    git archive "$BENCH_BEFORE" | tar -x -C "$before"
    (cd "$before" && cargo build --release --locked -p carrack-mover --target-dir "$home/before-target")
    tools+=(--tool-path "carrack-before=$home/before-target/release/carrack"
        --tools carrack,carrack-before,carrack-96MiB,carrack-device,carrack-list,restic,rustic,borg,kopia)
fi

if [ "${BENCH_MICRO:-yes}" != no ]; then
    # Enough samples to see a change of a tenth, in minutes and not in an hour.
    cargo bench --locked -p carrack-benches -- --warm-up-time 0.5 --measurement-time 2 --noplot |
        tee "$results/micro.txt"
fi

[ "${BENCH_FRESH:-no}" = no ] || rm -f "$results/scenario.json"
code=0
"$target/release/scenario" --cache "$home" --scale "${BENCH_SCALE:-1}" --runs "${BENCH_RUNS:-1}" \
    --datasets "${BENCH_DATASETS:-random,vm,tree,small,db}" --store "${BENCH_STORES:-local,s3}" \
    --tool-path "carrack=$target/release/carrack" "${tools[@]}" \
    --resume --json "$results/scenario.json" --markdown "$results/scenario.md" "$@" || code=$?

echo "results: $results/micro.txt, $results/scenario.md, $results/scenario.json"
exit "$code"
