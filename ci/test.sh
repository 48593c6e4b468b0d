#!/usr/bin/env bash
# Every test that runs the code as it is; the models are in ci/loom.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

# The library with debug assertions and overflow checks: what must never panic is run where it would.
cargo test --workspace --exclude shmuring-communicator
# The communicator optimised: its tests drive the real binary, and debug builds verify pages 20 times slower.
cargo test --profile checked -p shmuring-communicator
