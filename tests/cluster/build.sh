#!/bin/sh
# Builds the programs of the test cluster and puts links to them into CARRACK_CACHE/cluster/bin. What is there is not
# built again; it installs nothing. Whatever is made of Kubernetes' libraries is in one module, at versions that have
# the same ones, so that they are compiled once: that is most of the work. runc needs a C compiler and csi-test another
# CSI, so they have modules of their own.
#
#   tests/cluster/build.sh [part...]      default: all of the clusters; csi-driver is our own, the others lie in modules/
#   tests/cluster/build.sh velero         what Carrack is compared with, in peers/
#
# CARRACK_CACHE: the cache directory; default .cache in the root of the repository.
# What Go compiles on the way lies below CARRACK_CACHE and is deleted after each part.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${CARRACK_CACHE:-$root/.cache}/cluster
mkdir -p "$cache/bin"

# What builds that were killed have left.
for old in "$cache"/go-build.*; do
    kill -0 "${old##*.}" 2>/dev/null || rm -rf "$old"
done
scratch=$cache/go-build.$$
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' INT TERM HUP
export GOCACHE="$scratch/cache" GOTMPDIR="$scratch/tmp"

source_of() { # source_of PART
    case $1 in
    csi-driver) echo "$here/csi-driver" ;;
    velero) echo "$here/peers/velero" ;;
    *) echo "$here/modules/$1" ;;
    esac
}

# Without a version, kubelet and kube-apiserver refuse each other. Without seccomp, runc fails every pod.
# Nothing is inlined and nothing described for debuggers: a third less to wait, which the tests do not notice.
settings() { # settings PART; sets cgo, tags, compile and link
    cgo=0 tags='' compile='all=-l -dwarf=false' link='-s -w'
    case $1 in
    kubernetes)
        version=$(sed -n "s/^.*k8s.io\/kubernetes \(v[^ ]*\).*/\1/p" "$(source_of "$1")/go.mod")
        link="$link -X k8s.io/component-base/version.gitVersion=$version"
        ;;
    runc) cgo=1 tags=seccomp ;;
    esac
}

# The driver is source of ours, the others are what their sums say.
key_of() { # key_of PART
    (
        cd "$(source_of "$1")"
        settings "$1"
        echo "$cgo $tags $compile $link"
        if [ "$1" = csi-driver ]; then find . -name '*.go' -o -name 'go.*' | LC_ALL=C sort | xargs cat; else cat go.mod go.sum; fi
    ) | sha256sum | cut -c1-16
}

compile() { # compile PART TARGET
    settings "$1"
    cd "$(source_of "$1")"
    if [ "$1" = csi-driver ]; then
        packages=. output=$2/carrack-test-csi
    else
        packages=tool output=$2/
    fi
    mkdir -p "$GOCACHE" "$GOTMPDIR"
    # Fetches what is not there. What the compiler says is final.
    CGO_ENABLED=$cgo "$root/tests/patiently.sh" go list -deps -tags "$tags" $packages >/dev/null
    CGO_ENABLED=$cgo go build -trimpath -buildvcs=false -tags "$tags" -gcflags "$compile" -ldflags "$link" \
        -o "$output" $packages
    case $1 in
    kubernetes)
        mv "$2/server" "$2/etcd"
        mkdir "$2/crd"
        for kinds in external-snapshotter/client/v8:snapshot external-snapshot-metadata/client:cbt; do
            module=$(go list -m -f '{{.Dir}}' "github.com/kubernetes-csi/${kinds%:*}")
            cp "$module/config/crd/${kinds#*:}".storage.k8s.io_*.yaml "$2/crd/"
        done
        chmod -R u+w "$2/crd"
        ;;
    esac
}

build() { # build PART
    part=$1
    [ -e "$(source_of "$part")/go.mod" ] || {
        echo "build.sh: there is no part $part; parts: $(parts)" >&2
        exit 2
    }
    directory=$part-$(key_of "$part")
    # Whoever else builds it now is waited for.
    exec 9>"$cache/$part.lock"
    flock 9
    if ! [ -d "$cache/$directory" ]; then
        echo "build.sh: building $part"
        # Built under another name and renamed, so that an interrupted build is not taken for a finished one.
        rm -rf "$cache/partial-$part".*
        mkdir "$cache/partial-$part.$$"
        (compile "$part" "$cache/partial-$part.$$")
        rm -rf "$scratch"
        rm -rf "$cache/$part"-????????????????
        mv "$cache/partial-$part.$$" "$cache/$directory"
    fi
    for program in "$cache/$directory"/*; do
        ln -sfn "../$directory/${program##*/}" "$cache/bin/${program##*/}"
    done
    exec 9>&-
}

parts() {
    echo "$(cd "$here/modules" && ls) csi-driver" | tr '\n' ' '
}

if [ $# -eq 0 ]; then
    # shellcheck disable=SC2046 # one word a part
    set -- $(parts)
fi
for part in "$@"; do
    build "$part"
done
