#!/usr/bin/env bash
# No panic in a backend: from none of the backend's functions, and from no exported function of the C interface, can the
# release build reach a panic, formatting, an allocation (but where it is documented), a thread, or an external function
# that ci/nopanic/rules.txt does not name. Functions that make or attach regions may, under the guard of
# ffi/src/guard.rs.
#
# The functions and the standard library become one program of LLVM IR (fat LTO), in which calls are plain text on every
# machine; ci/nopanic/walk follows them, through tables and trait objects too. Faults that are planted must be found.
set -euo pipefail
cd "$(dirname "$0")/nopanic"

export CARGO_INCREMENTAL=0 CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-../../target}/nopanic
mkdir -p "$CARGO_TARGET_DIR"
CARGO_TARGET_DIR=$(cd "$CARGO_TARGET_DIR" && pwd)

cargo build --quiet --locked -p nopanic-walk
walk() { # OPTION OF CARGO... -- OPTION OF THE WALK...
    local options=()
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    cargo rustc --quiet --locked --release -p nopanic-entries "${options[@]}" -- --emit=llvm-ir
    "$CARGO_TARGET_DIR/debug/nopanic-walk" "$CARGO_TARGET_DIR/release/deps/nopanic_entries.ll" rules.txt "$@"
}

walk --features planted -- --planted
walk --
