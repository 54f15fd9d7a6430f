#!/bin/sh
# Installs the peers of the benchmark into DIR (default .cache/bench/peers) and changes nothing else on the
# machine, apart from the headers that borg is compiled with.
#
#   benches/peers.sh [DIR] [restic|rustic|borg|minio|garage ...]
#
# Without names: restic rustic borg minio. Garage compiles for long, so it is made only when named.
# Prints the options for `scenario` at the end.
set -eu

dir=${1:-.cache/bench/peers}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- restic rustic borg minio
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

# The newest restic that Debian has, without giving the machine's own apt another suite.
restic() {
    mkdir -p "$dir/apt/lists/partial" "$dir/apt/cache/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian sid main" \
        >"$dir/apt/sources.list"
    private="-o Dir::Etc::sourcelist=$dir/apt/sources.list -o Dir::Etc::sourceparts=/dev/null
        -o Dir::State::lists=$dir/apt/lists -o Dir::Cache=$dir/apt/cache -o APT::Sandbox::User=root"
    # shellcheck disable=SC2086 # the options are words of their own
    (cd "$dir" && apt-get $private -qq update && rm -f restic_*.deb && apt-get $private download restic)
    dpkg-deb -x "$dir"/restic_*.deb "$dir/restic"
    "$dir/restic/usr/bin/restic" version
}

rustic() {
    nice cargo install rustic-rs --locked --no-default-features --root "$dir/rustic" --target-dir "$dir/build-rustic"
}

# borg compresses, hashes and encrypts with the system's libraries; PyPI has its source only.
borg() {
    apt-get install -y -qq python3-venv python3-dev gcc pkg-config libacl1-dev liblz4-dev libxxhash-dev libzstd-dev libssl-dev
    python3 -m venv "$dir/borg-venv"
    "$dir/borg-venv/bin/pip" install -q borgbackup
}

minio() {
    GOBIN="$dir/minio" nice go install github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c
}

garage() {
    nice cargo install garage --locked --no-default-features --features bundled-libs,sqlite \
        --root "$dir/garage" --target-dir "$dir/build-garage"
}

for peer in "$@"; do
    case $peer in
    restic | rustic | borg | minio | garage) "$peer" ;;
    *) echo "peers.sh: $peer is not one of restic rustic borg minio garage" >&2 && exit 2 ;;
    esac
done

echo "Options for scenario:"
for pair in restic=restic/usr/bin/restic rustic=rustic/bin/rustic borg=borg-venv/bin/borg; do
    [ ! -x "$dir/${pair#*=}" ] || echo "  --tool-path ${pair%%=*}=$dir/${pair#*=}"
done
for pair in minio=minio/minio garage=garage/bin/garage; do
    [ ! -x "$dir/${pair#*=}" ] || echo "  --s3-server ${pair%%=*}=$dir/${pair#*=}"
done
