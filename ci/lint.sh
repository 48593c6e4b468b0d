#!/usr/bin/env bash
# Formatting, and clippy without a warning. The lints that a crate denies are written in its Cargo.toml and lib.rs.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo fmt --all --check
# --all-targets: tests and benches too. In the profile of most tests, so that what runs at build time is built once.
cargo clippy --profile checked --workspace --all-targets -- -D warnings
# The model checkers replace the atomics of src/sync.rs, which changes types all over the library. Only the library and
# the models build so: nothing else may run on mocked atomics.
for checker in loom shuttle; do
    targets=(--lib)
    grep -q "^name = \"${checker}_" Cargo.toml && targets+=(--test "${checker}_*")
    cargo clippy --profile checked -p shmuring --features "$checker" "${targets[@]}" -- -D warnings
done
