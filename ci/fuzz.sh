#!/bin/sh
# Builds the fuzz targets and runs each for a few seconds: ci/fuzz.sh [seconds, default 5] [target ...]
#
# On stable: the flags below are those of cargo-fuzz that stable takes, so the fuzzer sees coverage, but there is no
# address sanitizer. `cargo +nightly fuzz run <target>` has it.
set -eu
cd "$(dirname "$0")/.."

seconds=${1:-5}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- attach decode reap

# libFuzzer itself is C++.
if ! command -v "${CXX:-c++}" >/dev/null 2>&1; then
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
        apt-get update -q && apt-get install -qy --no-install-recommends g++
    else
        echo "ci/fuzz.sh: a C++ compiler is needed (Debian: g++)" >&2
        exit 1
    fi
fi

host=$(rustc -vV | sed -n 's/^host: //p')
pass="-Cpasses=sancov-module -Ccodegen-units=1"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    pass="$pass -Cllvm-args=-sanitizer-coverage-$option"
done
# With --target the flags reach the targets and not the build scripts.
RUSTFLAGS="--cfg fuzzing $pass" cargo build --release --locked --manifest-path fuzz/Cargo.toml --target "$host"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT INT TERM
for target in "$@"; do
    echo "== $target: $seconds s"
    mkdir -p "$scratch/$target" "fuzz/artifacts/$target" "fuzz/corpus/$target"
    # What is found in passing stays in the scratch directory; a crash is kept.
    TMPDIR=$scratch "${CARGO_TARGET_DIR:-fuzz/target}/$host/release/$target" -max_total_time="$seconds" -timeout=10 \
        -rss_limit_mb=1024 -len_control=20 -max_len=2048 -print_final_stats=1 \
        -artifact_prefix="fuzz/artifacts/$target/" "$scratch/$target" "fuzz/corpus/$target" \
        >"$scratch/$target.log" 2>&1 || {
        grep -A2 "panicked at" "$scratch/$target.log" || true
        tail -40 "$scratch/$target.log"
        exit 1
    }
    grep -E "^(Done|stat::(number|average))" "$scratch/$target.log"
done
