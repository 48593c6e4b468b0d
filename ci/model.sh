#!/usr/bin/env bash
# Checks docs/model/ring.pml with spin: the model as it is holds, whole, and each deliberate bug is found.
set -euo pipefail
cd "$(dirname "$0")/.."
model=$PWD/docs/model/ring.pml
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

# Most memory of a search, MB, and the longest path: so much that nothing is cut off.
memory=4000
depth=100000

# Leaves what pan printed in the file `out`.
explore() { # "COMPILER FLAGS" "PAN FLAGS" SPIN FLAGS...
    local compile=$1 pan=$2
    shift 2
    spin -a "$@" "$model" >/dev/null
    # shellcheck disable=SC2086
    gcc -O2 -DCOLLAPSE -DMEMLIM="$memory" $compile -o pan pan.c
    # shellcheck disable=SC2086
    ./pan -m"$depth" -w23 $pan >out 2>&1
}

# Whether the search found nothing, and came to its end.
is_clean() { grep -q 'errors: 0' out && ! grep -qiE 'search not completed|max search depth|out of memory' out; }

holds() { # NAME, then as `explore`
    local name=$1
    shift
    explore "$@"
    if ! is_clean; then
        cat out
        echo "error: $name does not hold, or was not explored to the end" >&2
        exit 1
    fi
    printf '%-34s holds: %s states\n' "$name" "$(awk '/states, stored/ { print $1 }' out)"
}

holds "no lost hint or wake-up, deaths" -DSAFETY ""
holds "no livelock" -DNP -l -DPRODUCER_DEATHS=0 -DCOMMUNICATOR_DEATHS=0

# A search that is cut off has found nothing either, and must not pass for one that holds.
for cut in memory=100 depth=30; do
    (
        declare "$cut"
        explore -DSAFETY ""
        grep -q 'errors: 0' out && ! is_clean
    ) || { cat out; echo "error: a search that was cut off by $cut passes" >&2; exit 1; }
    printf '%-34s found: cut off\n' "$cut"
done

mapfile -t bugs < <(grep -oE 'BUG_[A-Z_]+' "$model" | grep -v '_$' | sort -u)
[ ${#bugs[@]} -ge 6 ] || { echo "error: the bugs were not found in the model" >&2; exit 1; }
for bug in "${bugs[@]}"; do
    explore -DSAFETY "" "-D$bug"
    if ! grep -q 'errors: 1' out; then
        cat out
        echo "error: $bug was not found" >&2
        exit 1
    fi
    printf '%-34s found: %s\n' "$bug" "$(sed -n 's/^pan:[0-9]*: //p' out | head -1)"
done
