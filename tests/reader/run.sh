#!/usr/bin/env bash
# Tests of the independent reader, with the program that is built from this checkout.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
export CARRACK=${CARRACK:-$(realpath ../../target/debug/carrack)}
[ -x "$CARRACK" ] || { echo "reader: $CARRACK is not built; run: cargo build -p carrack-mover" >&2; exit 1; }
PYTHONDONTWRITEBYTECODE=1 exec "${PYTHON:-python3}" -m unittest test_reader
