# shellcheck shell=bash
# What the judges share; each of them sources this file. A judge is a program of somebody else that says whether what
# was restored is what was there.
#
#   CARRACK       the program (default: the development build)
#   JUDGES_SIZE   short (default: a share of make test) or full (minutes each)
#
# Mounts live in a mount namespace of the script and end with it.
set -euo pipefail

root=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
judge=$(basename "$0" .sh)

fail() {
    printf '%s: %s\n' "$judge" "$1" >&2
    exit 1
}

say() { printf '%s: %s\n' "$judge" "$1"; }

if [ -z "${JUDGE_ALONE:-}" ]; then
    [ "$(id -u)" = 0 ] || fail "mounts and devices need root; run it as root"
    "$root/tests/setup.sh" judges
    exec env JUDGE_ALONE=1 unshare --mount --propagation private "$0" "$@"
fi

cache=${CARRACK_CACHE:-$root/.cache}
carrack=$(realpath "${CARRACK:-$root/target/debug/carrack}")
[ -x "$carrack" ] || fail "$carrack is not built; run: cargo build --locked -p carrack-mover"
case ${JUDGES_SIZE:=short} in
short | full) ;;
*) fail "JUDGES_SIZE is short or full, not $JUDGES_SIZE" ;;
esac

work=$(mktemp -d "${TMPDIR:-/tmp}/carrack-judge.XXXXXX")
chmod 755 "$work"
devices=()
# Functions that a judge wants to be called before its place is removed.
at_end=()

clean_up() {
    local status=$? each
    set +e
    for each in "${at_end[@]}"; do "$each"; done
    for each in "${devices[@]}"; do losetup --detach "$each"; done
    # All that lies below is mounted by this script alone.
    awk -v below="$work/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo | sort -r | xargs -r umount --lazy
    if [ -z "${JUDGES_KEEP:-}" ]; then rm -rf "$work"; else say "kept $work"; fi
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# A secret and not a password: to derive a key from a password is slow on purpose.
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$work/secret"
export CARRACK_REPOSITORY=$work/repository CARRACK_KEY_FILE=$work/secret
unset CARRACK_PASSWORD CARRACK_PASSWORD_FILE CARRACK_PASSWORD_COMMAND

# The value for this size: pick SHORT FULL.
pick() { if [ "$JUDGES_SIZE" = short ]; then printf '%s' "$1"; else printf '%s' "$2"; fi; }

# What the program says is shown only if it fails.
quietly() {
    local status=0
    "$@" >"$work/said" 2>&1 || status=$?
    [ "$status" = 0 ] || { cat "$work/said" >&2 && fail "exit code $status of: $*"; }
}

# Restores a snapshot to a target.
restore() { quietly "$carrack" restore "$1" --target "$2" "${@:3}"; }

# The newest snapshot's id.
latest() { "$carrack" snapshots --json | sed -n 's/.*"message_type":"snapshot".*"session":"\([^"]*\)".*/\1/p' | tail -n1; }

# make_device FILE SIZE: a sparse file as a loop device; the device is in $device then.
make_device() {
    [ -e "$1" ] || truncate -s "$2" "$1"
    device=$(losetup --find --show "$1")
    devices+=("$device")
}

# Fails unless rsync finds nothing to do: every byte and attribute.
same_tree() { # same_tree EXPECTED FOUND [OPTION OF RSYNC…]
    local differences
    differences=$(rsync -nac --delete -HAXS --numeric-ids --modify-window=-1 --itemize-changes \
        --filter='-x trusted.SGI_ACL_*' "${@:3}" "$1/" "$2/")
    [ -z "$differences" ] || { head -n 20 <<<"$differences" >&2 && fail "$2 differs from $1"; }
}
