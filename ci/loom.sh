#!/usr/bin/env bash
# The models: every schedule (within a bound) of the protocol's edges under loom, random schedules of whole systems under
# shuttle, and that each labelled edge has both ends, a model and a twin. Prints how much of each was explored.
#
# SHMURING_SCHEDULES: how many schedules shuttle runs in all; 100000 unless it is set (10000000 take about an hour).
# Arguments choose tests by a part of their name: ci/loom.sh doorbell
set -euo pipefail
cd "$(dirname "$0")/.."

export SHMURING_SCHEDULES=${SHMURING_SCHEDULES:-100000}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

ci/edges.sh

# Optimised: loom explores millions of steps, and debug builds are 20 times slower. A process a test, as many at once as
# there are cpus: a model has one thread of the system, and some take minutes.
for checker in loom shuttle; do
    cargo test --profile checked --features "$checker" --test "${checker}_*" --no-run 2>&1 | tee "$scratch/build" >&2
    sed -nE 's/^ *Executable .*\((.*)\)$/\1/p' "$scratch/build" >>"$scratch/binaries"
done
while read -r binary; do
    name=$(basename "$binary" | sed 's/-[0-9a-f]*$//')
    "$binary" --list --format terse | sed -n "s/: test\$//p" | grep -v '^planted_fault$' | sed "s|^|$binary $name |"
done <"$scratch/binaries" | { if [ $# -eq 0 ]; then cat; else grep -F -- "$1" || true; fi; } >"$scratch/tests"
[ -s "$scratch/tests" ] || { echo "error: no test was found" >&2; exit 1; }

one() { # BINARY NAME TEST
    local out=$scratch/$2.$3 TIMEFORMAT='%U'
    : >"$out.explored"
    # Two test threads: with one, libtest runs the test in the main thread, which has another name.
    if { time SHMURING_MODELS=$out.explored "$1" --exact "$3" --test-threads 2 >"$out.log" 2>&1; } 2>"$out.time" &&
        grep -q '^test result: ok. 1 passed' "$out.log"; then
        # Only a twin may have failed at its first interleaving; a model with no other has no concurrency in it.
        local least=2
        ! grep -q '^test .* - should panic \.\.\. ok$' "$out.log" || least=1
        awk -v name="$2::$3" -v s="$(<"$out.time")" -v least=$least '
            { n += $2 }
            END {
                if (name ~ /^loom/ && n < least) { print name ": only " n + 0 " interleavings"; exit 1 }
                printf "%-110s %10d %6d %5d s\n", name, n, NR, s >>table
            }' table="$scratch/table" "$out.explored" || echo "$2::$3" >>"$scratch/failed"
    else
        cat "$out.log"
        echo "$2::$3" >>"$scratch/failed"
    fi
}
export -f one
export scratch
# Those that take longest first.
long='two_slow| shuttle_|die|_death|wake_up|full_ring|bitmap'
: >"$scratch/table"
: >"$scratch/failed"
{ grep -E "$long" "$scratch/tests" || true; grep -vE "$long" "$scratch/tests" || true; } |
    xargs -P "$(nproc)" -L 1 bash -c 'one "$@"' one || true

printf '%-110s %10s %6s %7s\n' model explored runs cpu
sort "$scratch/table"
awk '{ if ($1 ~ /^loom/) { m++; l += $2 } else { t++; s += $2 } }
    END { printf "%d models, %d interleavings under loom; %d tests, %d schedules under shuttle\n", m, l, t, s }' \
    "$scratch/table"
if [ "$(wc -l <"$scratch/table")" -ne "$(wc -l <"$scratch/tests")" ]; then
    echo "error: $(wc -l <"$scratch/tests") tests, of which failed:" >&2
    cat "$scratch/failed" >&2
    exit 1
fi
