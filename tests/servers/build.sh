#!/bin/sh
# Builds real S3 servers, each from its own Go module, into a cache directory keyed by the module's sums: what is
# there is not built again. The tests run against MinIO, the benchmark against versitygw too.
#
#   tests/servers/build.sh [server...]      default: all
#
# CARRACK_CACHE: the cache directory; default .cache in the root of the repository.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${CARRACK_CACHE:-$root/.cache}

build() {
    server=$1
    package=$(sed -n 's/^tool \(.*\)$/\1/p' "$here/$server/go.mod")
    key=$(sha256sum "$here/$server/go.sum" | cut -c1-16)
    target=$cache/servers/$server-$key/$server
    if [ -x "$target" ]; then
        echo "$target"
        return
    fi
    mkdir -p "$(dirname "$target")"
    # Fetches what is not there. What the compiler says is final.
    (cd "$here/$server" && "$root/tests/patiently.sh" go list -deps "$package" >/dev/null)
    # Built under another name and renamed, so that an interrupted build is not taken for a finished one.
    (cd "$here/$server" && go build -trimpath -ldflags '-s -w' -o "$target.$$" "$package")
    mv "$target.$$" "$target"
    echo "$target"
}

if [ $# -eq 0 ]; then
    set -- $(cd "$here" && ls -d */ | tr -d /)
fi
for server in "$@"; do
    build "$server"
done
