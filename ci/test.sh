#!/usr/bin/env bash
# Every test that runs the code as it is; the models are in ci/loom.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

# The C and C++ tests run by each of these.
for program in gcc g++ clang clang++ valgrind; do
    command -v "$program" >/dev/null || { echo "error: no $program: run ci/deps.sh" >&2; exit 1; }
done

# The library with debug assertions and overflow checks: what must never panic is run where it would.
cargo test
# The others optimised, with the same checks: the communicator's tests drive the real binary, and debug builds verify
# pages 20 times slower; those of the C interface link the static library, and run it under valgrind.
ci/checked.sh
