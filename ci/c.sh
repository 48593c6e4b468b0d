#!/usr/bin/env bash
# What becomes of a panic in the library when C has called it. By itself, since it needs a library that panics on
# demand. Every other test of the C interface runs with ci/test.sh, by each of the compilers that are asked for here.
set -euo pipefail
cd "$(dirname "$0")/.."

for program in gcc g++ clang clang++ valgrind; do
    command -v "$program" >/dev/null || { echo "error: no $program: run ci/deps.sh" >&2; exit 1; }
done

# A directory of its own: the other tests link with a library of the same name.
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/inject-panic cargo test -p shmuring-ffi --features inject-panic --test bug
