#!/bin/sh
# Installs the peers of the benchmark into DIR (default CARRACK_CACHE/bench/peers) and changes nothing else on the
# machine, apart from GNU time and the headers that borg is compiled with. What is there is not installed again.
#
#   benches/peers.sh [DIR] [restic|rustic|borg|minio|garage|versitygw ...]
#
# Without names: restic rustic borg minio. Garage compiles for long and versitygw for a while, so they are made only when named.
# Prints the options for `scenario` at the end. A peer that cannot be installed is named, the others are installed
# all the same, and the exit code is then 1.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cache=${CARRACK_CACHE:-$root/.cache}
dir=${1:-$cache/bench/peers}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- restic rustic borg minio
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

# Debian packages that are not there yet.
debian() {
    missing=
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    # shellcheck disable=SC2086 # the packages are words of their own
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >&2
}

# The newest restic that Debian has, without giving the machine's own apt another suite.
restic() {
    mkdir -p "$dir/apt/lists/partial" "$dir/apt/cache/archives/partial"
    # The mirror that this machine uses; it may reach no other.
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -m1 '/debian$' || true)
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian} sid main" \
        >"$dir/apt/sources.list"
    private="-o Dir::Etc::sourcelist=$dir/apt/sources.list -o Dir::Etc::sourceparts=/dev/null
        -o Dir::State::lists=$dir/apt/lists -o Dir::Cache=$dir/apt/cache -o APT::Sandbox::User=root"
    # shellcheck disable=SC2086 # the options are words of their own
    (cd "$dir" && apt-get $private -qq update && rm -f restic_*.deb && apt-get $private -qq download restic) &&
        dpkg-deb -x "$dir"/restic_*.deb "$dir/restic" && "$dir/restic/usr/bin/restic" version
}

rustic() {
    nice cargo install rustic-rs --locked --no-default-features --root "$dir/rustic" --target-dir "$dir/build-rustic" &&
        rm -rf "$dir/build-rustic"
}

# borg compresses, hashes and encrypts with the system's libraries; PyPI has its source only.
borg() {
    debian python3-venv python3-dev gcc pkg-config libacl1-dev liblz4-dev libxxhash-dev libzstd-dev libssl-dev &&
        python3 -m venv "$dir/borg-venv" && "$dir/borg-venv/bin/pip" install -q --no-input borgbackup
}

# Servers that are Go modules with pinned sums; MinIO is the one that the tests run against.
module() {
    mkdir -p "$dir/$1"
    built=$(CARRACK_CACHE=$cache "$root/tests/servers/build.sh" "$1") && ln -sf "$built" "$dir/$1/$1"
}

minio() {
    module minio
}

versitygw() {
    module versitygw
}

garage() {
    nice cargo install garage --locked --no-default-features --features bundled-libs,sqlite \
        --root "$dir/garage" --target-dir "$dir/build-garage" && rm -rf "$dir/build-garage"
}

program() {
    case $1 in
    restic) echo "$dir/restic/usr/bin/restic" ;;
    borg) echo "$dir/borg-venv/bin/borg" ;;
    minio | versitygw) echo "$dir/$1/$1" ;;
    *) echo "$dir/$1/bin/$1" ;;
    esac
}

failed=
debian time || failed=time
for peer in "$@"; do
    case $peer in
    restic | rustic | borg | minio | garage | versitygw) ;;
    *) echo "peers.sh: $peer is not one of restic rustic borg minio garage versitygw" >&2 && exit 2 ;;
    esac
    [ -x "$(program "$peer")" ] || "$peer" >&2 || failed="$failed $peer"
done

for peer in restic rustic borg; do
    [ ! -x "$(program $peer)" ] || echo "--tool-path $peer=$(program $peer)"
done
for peer in minio garage versitygw; do
    [ ! -x "$(program $peer)" ] || echo "--s3-server $peer=$(program $peer)"
done
[ -z "$failed" ] || { echo "peers.sh: could not be installed: $failed" >&2 && exit 1; }
