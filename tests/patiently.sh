#!/bin/sh
# Runs a command that fetches something, up to three times with a pause: who is far away may not answer for a moment.
#
#   tests/patiently.sh COMMAND...
set -u

for pause in 5 20 none; do
    status=0
    "$@" || status=$?
    [ "$status" -ne 0 ] && [ "$pause" != none ] || exit "$status"
    echo "patiently.sh: exit code $status of: $*; once more in $pause s" >&2
    sleep "$pause"
done
