#!/usr/bin/env bash
# Kills a process before every instruction of each operation, and shows that the others go on and lose nothing.
# Prints the instructions and kills of each operation. Needs ptrace; without it the tests say so and fail.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Optimised: a debug build has some ten times the instructions. The figures are printed by tests that pass, too.
cargo test --profile checked --test single_step -- --nocapture "$@" | tee "$scratch/out"
# Of communicators in C, through the C interface.
ci/checked.sh --test single_step_in_c -- --nocapture "$@" | tee -a "$scratch/out"
# A filter that fits nothing, or an operation that came to no kill, shows nothing.
awk -v chosen=$# '
    /^test result: ok/ { n += $4 }
    / instructions, .* kills \(/ { i += $2; k += $4; if ($4 == 0) none = 1 }
    END {
        printf "%d instructions stepped, %d kills in all\n", i, k
        if (n == 0 || none || chosen == 0 && k == 0) { print "error: nothing was stepped" > "/dev/stderr"; exit 1 }
    }' "$scratch/out"
