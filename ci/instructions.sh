#!/usr/bin/env bash
# How many instructions each step of a request takes, counted by callgrind: fails if one takes a tenth more than the
# number below. benches/instructions.rs has the steps of Rust callers, ffi/benches/c/steps.c those of C callers. Lower
# a number when the code gets better; raise it only with a reason in the commit. They are those of x86-64; other
# machines are told and not judged.
set -euo pipefail
cd "$(dirname "$0")/.."

# Step, and instructions of one: of one request where a step serves several.
expected="
free_slot        21
fill_nop         46
fill_read        60
fill_any         93
submit           54
submit_many      63
poll_miss        26
poll_hit         18
finish           49
serve_nops      131
serve_reads     164
serve_delivered 268
written_note    188
written_again   118
written_get     137
rel_size_hit     82
rel_size_miss    63
scheduler_ready_few   2705
scheduler_ready_many  2084
scheduler_future_few  3594
scheduler_future_many 3564
"

# The same from C: a call of the static library, but for the poll, which is inline (14, and its part of a loop). A second
# number is a promise, without the tenth: from nothing to a submitted read in 100.
expected_c="
free_slot        32
fill_get_page    56
fill_any        115
start_get_page   99 100
submit           67
submit_many      68
poll_hit         15
finish           67
"

# Incremental builds inline otherwise.
export CARGO_INCREMENTAL=0
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT

# Compares what a profile counted with what is expected, given how often each step ran.
judge() { # EXPECTED TIMES PROFILE PATTERN OF THE NAMES, WITHOUT THE STEP'S
    # It warns about totals that it cannot format.
    callgrind_annotate --inclusive=yes --threshold=100 "$3" >"$directory/counts" 2>"$directory/log"
    awk -v machine="$(uname -m)" -v pattern="$4" '
        FILENAME == ARGV[1] { if (NF) { expected[$1] = $2; most[$1] = $3; order[++n] = $1 } next }
        FILENAME == ARGV[2] { times[$1] = $2; next }
        match($0, pattern "[a-z_]+") {
            step = substr($0, RSTART + length(pattern), RLENGTH - length(pattern))
            gsub(",", "", $1)
            if (!(step in count)) count[step] = $1
        }
        END {
            printf "%-21s %10s %10s\n", "step", "expected", "counted"
            for (step in times) if (!(step in expected)) { print "error: no number for " step; failed = 1 }
            for (i = 1; i <= n; i++) {
                step = order[i]
                if (!count[step] || !times[step]) { print "error: " step " was not counted"; failed = 1; continue }
                now = count[step] / times[step]
                over = now > 1.1 * expected[step] || most[step] && now > most[step]
                verdict = over ? "too many" : now < 0.9 * expected[step] ? "lower the number" : ""
                printf "%-21s %10d %10.1f %s\n", step, expected[step], now, verdict
                if (over && machine == "x86_64") failed = 1
            }
            exit failed
        }
    ' <(echo "$1") "$2" "$directory/counts"
}

cargo bench --bench instructions --no-run 2>&1 | tee "$directory/build" | grep -vE '^ +(Compiling|Downloaded)' >&2 || true
program=$(sed -nE 's/^ +Executable .*\((.*)\)$/\1/p' "$directory/build")
[ -x "$program" ] || { echo "error: the benchmark was not built" >&2; exit 1; }

if ! valgrind --tool=callgrind --callgrind-out-file="$directory/profile" "$program" \
    >"$directory/times" 2>"$directory/log"; then
    cat "$directory/log" >&2
    exit 1
fi
failed=0
judge "$expected" "$directory/times" "$directory/profile" 'instructions::steps::' || failed=1

# The program is a child of the benchmark, which serves it. Without the host, which it does not use and which takes long
# to build.
if ! cargo bench -p shmuring-ffi --no-default-features --features communicator --bench instructions -- "$directory/profile_c" \
    >"$directory/times_c" 2>"$directory/log"; then
    cat "$directory/log" >&2
    exit 1
fi
printf '\nfrom C\n'
judge "$expected_c" "$directory/times_c" "$directory/profile_c" 'step_' || failed=1
exit "$failed"
