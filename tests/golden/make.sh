#!/usr/bin/env bash
# Writes the golden repository of this format version: once per released version, never edited afterwards.
#
#   tests/golden/make.sh v1      needs a built carrack (CARRACK) and the reader's environment (PYTHON)
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
version=$1
carrack=$(realpath "${CARRACK:-../../target/release/carrack}")
python=${PYTHON:-../../.cache/reader/bin/python}
[ ! -e "$version" ] || { echo "golden: $version exists, and golden repositories are never edited" >&2; exit 1; }
source=/tmp/carrack-golden
trap 'rm -rf "$source"' EXIT

mkdir "$version"
export CARRACK_REPOSITORY=$PWD/$version/repository CARRACK_PASSWORD=golden PYTHONPATH=../reader
make='import pathlib, test_reader; test_reader.make_tree(pathlib.Path("'$source'"))'
PYTHONDONTWRITEBYTECODE=1 "$python" -c "$make"
"$carrack" init
"$carrack" backup --host golden "$source"
printf 'changed\n' >>"$source/deep/er/changed"
"$carrack" --cipher chacha20-poly1305 backup --host golden --tag second "$source"
PYTHONDONTWRITEBYTECODE=1 "$python" ../reader/read_repository.py "$CARRACK_REPOSITORY" listing latest >"$version/listing.jsonl"
# The listing is worth nothing if it only repeats what was stored wrongly: compare it with the tree.
PYTHONDONTWRITEBYTECODE=1 "$python" - "$version/listing.jsonl" <<'CHECK'
import hashlib, json, sys
files = [row for row in map(json.loads, open(sys.argv[1])) if "sha256" in row]
for row in files:
    path = "/" + row["path"] if "\\x" not in row["path"] else None
    if path and hashlib.sha256(open(path, "rb").read()).hexdigest() != row["sha256"]:
        sys.exit(f"golden: {path} is not what was stored")
print(f"golden: {len(files)} files compared")
CHECK
