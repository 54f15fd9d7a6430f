#!/usr/bin/env bash
# A compiler for cargo (RUSTC_WRAPPER): what reads untrusted bytes is compiled so that libFuzzer sees where an input
# leads; everything else as it is. Needs no unstable option.
set -euo pipefail

compiler=$1
shift
case " $* " in
*" --crate-name carrack_mover "* | *" --crate-name carrack_fuzz "* | *" --crate-name carrack_libfuzzer "* | \
    *" --crate-name serde_json "* | *" --crate-name hex "* | *" --crate-name globset "* | \
    *" --crate-name aws_smithy_xml "*)
    exec "$compiler" "$@" --cfg fuzzing -C codegen-units=1 -C passes=sancov-module \
        -C llvm-args=-sanitizer-coverage-level=4 -C llvm-args=-sanitizer-coverage-inline-8bit-counters \
        -C llvm-args=-sanitizer-coverage-pc-table -C llvm-args=-sanitizer-coverage-trace-compares
    ;;
esac
exec "$compiler" "$@"
