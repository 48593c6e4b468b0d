#!/usr/bin/env bash
# The models: every schedule (within a bound) of the protocol's edges under loom, random schedules of more threads under
# shuttle, and that each labelled edge has both ends and a model.
set -euo pipefail
cd "$(dirname "$0")/.."

ci/edges.sh
for checker in loom shuttle; do
    # Optimised: loom explores millions of steps, and debug builds are 20 times slower.
    cargo test --profile checked --features "$checker" --test "${checker}_*"
done
