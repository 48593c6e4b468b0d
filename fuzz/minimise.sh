#!/usr/bin/env bash
# Makes the committed corpus anew of itself and of what runs have found:
#   FUZZ_KEEP=/DIRECTORY ci/fuzz.sh 600 && fuzz/minimise.sh /DIRECTORY [largest number of files of a target, default 24]
# libFuzzer's merge keeps few inputs that give every feature. Of those the longest half of that number stays, which give
# the most features each, and as many spread over the rest.
set -euo pipefail
cd "$(dirname "$0")"

found=$1
most=${2:-24}
host=$(rustc -vV | sed -n 's/^host: //p')
export ASAN_OPTIONS="detect_leaks=0:${ASAN_OPTIONS:-}"
for directory in "$found"/*/; do
    target=$(basename "$directory")
    merged=$(mktemp -d)
    mkdir -p "corpus/$target"
    TMPDIR=$merged.tmp
    mkdir -p "$TMPDIR"
    export TMPDIR
    "${CARGO_TARGET_DIR:-target}/$host/release/$target" -set_cover_merge=1 -max_len=2048 "$merged" "corpus/$target" \
        "$directory" 2>&1 | grep -E '^MERGE-OUTER: .* new' || true
    [ -n "$(ls -A "$merged")" ] || { echo "error: the merge of $target gave nothing" >&2; exit 1; }
    rm -f "corpus/$target"/*
    find "$merged" -type f -printf '%s %p\n' | sort -rn | cut -d' ' -f2- | awk -v most="$most" '
        { file[NR] = $0 }
        END {
            half = int(most / 2)
            stride = NR > most ? (NR - half) / (most - half) : 1
            for (i = 1; i <= NR && i <= half; i++) print file[i]
            for (k = 0; k < most - half && int(half + 1 + k * stride) <= NR; k++) print file[int(half + 1 + k * stride)]
        }' | xargs -r cp -t "corpus/$target"
    rm -rf "$merged" "$TMPDIR"
    unset TMPDIR
    echo "$target: $(find "corpus/$target" -type f | wc -l) files, $(du -bs "corpus/$target" | cut -f1) bytes"
done
