#!/usr/bin/env bash
# Builds the fuzz targets and runs each, two at a time, from the committed corpus:
#   ci/fuzz.sh [seconds for each, default 60] [target ...; default: every one of fuzz/Cargo.toml]
# FUZZ_JOBS: how many at a time. FUZZ_KEEP: a directory that keeps what was found (see fuzz/minimise.sh).
#
# On stable: the flags below are those that cargo-fuzz passes, so the fuzzer sees coverage. The address sanitizer is used
# if this compiler takes it: stable does, when told to act as a nightly (RUSTC_BOOTSTRAP).
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
[ $# -eq 0 ] || shift
mapfile -t known < <(sed -nE 's/^ *\{ name = "([a-z0-9_]+)", path = .*/\1/p' fuzz/Cargo.toml)
[ ${#known[@]} -gt 0 ] || { echo "error: no target in fuzz/Cargo.toml" >&2; exit 1; }
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=("${known[@]}")
jobs=${FUZZ_JOBS:-2}
# From nothing a minute comes nowhere. The first corpus of a new target is made with FUZZ_KEEP.
for target in "${targets[@]}"; do
    [ -n "${FUZZ_KEEP:-}" ] || [ -n "$(find "fuzz/corpus/$target" -type f 2>/dev/null)" ] || {
        echo "error: there is no corpus of $target in fuzz/corpus" >&2
        exit 1
    }
done

# libFuzzer itself is C++.
if ! command -v "${CXX:-c++}" >/dev/null; then
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        apt-get update -q && apt-get install -qy --no-install-recommends g++
    else
        echo "error: a C++ compiler is needed (Debian: g++)" >&2
        exit 1
    fi
fi

scratch=$(mktemp -d)
finish() {
    local left
    left=$(jobs -p)
    # shellcheck disable=SC2086 # one word a process
    [ -z "$left" ] || kill $left 2>/dev/null || true
    rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 130' INT TERM

host=$(rustc -vV | sed -n 's/^host: //p')
flags="--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    flags+=" -Cllvm-args=-sanitizer-coverage-$option"
done
echo 'fn main() {}' >"$scratch/probe.rs"
if RUSTC_BOOTSTRAP=1 rustc -Zsanitizer=address --target "$host" -o "$scratch/probe" "$scratch/probe.rs" \
    2>"$scratch/why" && "$scratch/probe"; then
    export RUSTC_BOOTSTRAP=1
    flags+=" -Zsanitizer=address"
    with="with the address sanitizer"
else
    with="WITHOUT THE ADDRESS SANITIZER"
    printf '%s: %s does not take it here:\n' "$with" "$(rustc -V)"
    cat "$scratch/why"
fi
# With --target the flags reach the targets and not the build scripts. libFuzzer itself needs no sanitizer: with one it
# takes longer to build, and watches itself.
CXXFLAGS="-O2 -g0 -fno-sanitize=address ${CXXFLAGS:-}" RUSTFLAGS=$flags cargo build --release --locked \
    --manifest-path fuzz/Cargo.toml --target "$host" "${targets[@]/#/--bin=}"

# Deaths are played by forgetting claims, which is a leak. A small quarantine keeps several targets in little memory.
export ASAN_OPTIONS="detect_leaks=0:quarantine_size_mb=64:${ASAN_OPTIONS:-}"

run() { # TARGET
    local target=$1 log="$scratch/$1.log" found="${FUZZ_KEEP:-$scratch/found}/$1"
    mkdir -p "$found" "$scratch/tmp/$target" "fuzz/artifacts/$target" "fuzz/corpus/$target"
    # What is found in passing stays out of the corpus; a crash is kept.
    if ! TMPDIR="$scratch/tmp/$target" "${CARGO_TARGET_DIR:-fuzz/target}/$host/release/$target" \
        -max_total_time="$seconds" -timeout=30 -rss_limit_mb=1024 -len_control=20 -max_len=2048 -print_final_stats=1 \
        -artifact_prefix="fuzz/artifacts/$target/" "$found" "fuzz/corpus/$target" >"$log" 2>&1; then
        echo "== $target FAILED; the input is in fuzz/artifacts/$target"
        grep -A2 "panicked at" "$log" || true
        tail -60 "$log"
        return 1
    fi
    awk -v target="$target" -v seeds="$(find "fuzz/corpus/$target" -type f | wc -l)" '
        / cov: / { for (i = 1; i < NF; i++) { if ($i == "cov:") cov = $(i + 1); if ($i == "ft:") ft = $(i + 1) } }
        /^Done / { runs = $2; time = $5 }
        /^stat::new_units_added/ { new = $2 }
        END { printf "%-10s %9d executions in %d s, coverage %d, features %d, %d seeds, %d new inputs\n",
              target, runs, time, cov, ft, seeds, new
              exit !(cov > 0 && runs > seeds) }
    ' "$log" | tee -a "$scratch/sum" || { echo "== $target FAILED: it ran blind, or no more than its corpus" >&2; return 1; }
}

echo "${#targets[@]} targets, $seconds s each, $jobs at a time, $with"
failed=0
running=0
for target in "${targets[@]}"; do
    if [ "$running" -ge "$jobs" ]; then
        wait -n || failed=1
        running=$((running - 1))
    fi
    run "$target" &
    running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
    wait -n || failed=1
    running=$((running - 1))
done
[ ! -f "$scratch/sum" ] || awk '{ n += $2 } END { printf "%d executions in all\n", n }' "$scratch/sum"
exit $failed
