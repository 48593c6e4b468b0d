#!/usr/bin/env bash
# Makes the committed corpus anew of itself and of what runs have found:
#   FUZZ_KEEP=DIRECTORY ci/fuzz.sh 600 && fuzz/minimise.sh DIRECTORY [largest number of files of a target, default 40]
# libFuzzer's merge keeps the smallest inputs that give every feature; of those the shortest stay, up to that number.
set -euo pipefail
cd "$(dirname "$0")"

found=$1
most=${2:-40}
host=$(rustc -vV | sed -n 's/^host: //p')
export ASAN_OPTIONS="detect_leaks=0:${ASAN_OPTIONS:-}"
for directory in "$found"/*/; do
    target=$(basename "$directory")
    merged=$(mktemp -d)
    mkdir -p "corpus/$target"
    TMPDIR=$merged.tmp
    mkdir -p "$TMPDIR"
    export TMPDIR
    "${CARGO_TARGET_DIR:-target}/$host/release/$target" -merge=1 -max_len=2048 "$merged" "corpus/$target" "$directory" \
        2>&1 | grep -E '^MERGE-OUTER: [0-9]+ new' || true
    rm -f "corpus/$target"/*
    # Shortest first: the most features for a byte.
    find "$merged" -type f -printf '%s %p\n' | sort -n | head -n "$most" | cut -d' ' -f2- | xargs -r cp -t "corpus/$target"
    rm -rf "$merged" "$TMPDIR"
    unset TMPDIR
    echo "$target: $(find "corpus/$target" -type f | wc -l) files, $(du -bs "corpus/$target" | cut -f1) bytes"
done
