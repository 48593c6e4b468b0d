#!/usr/bin/env bash
# Compares the labels of memory orderings: in src/, in the table of docs/ordering.md, and in the model checks. Each label
# has two ends, a row, a model that is named after it, and a twin of that model that must fail: `xx_n_weakened...`, which
# weakens that label, or breaks the edge by hand if docs/ordering.md says why. A fence has a twin without it besides.
# Exceptions are those that docs/ordering.md lists. Then plants faults in a copy, each of which must be found.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C

# Every test of the models: "model NAME" or "twin NAME EXPECTS?", and what it weakens ("weakens LABEL NAME", "removes LABEL NAME").
tests() { # ROOT
    find "$1/loom-tests" -name '*.rs' -print0 | sort -z | xargs -0 awk '
        /^#\[test\]/ { test = 1; panics = 0 }
        test && /^#\[should_panic\(expected/ { panics = 1 }
        test && /^fn [a-z0-9_]+\(/ {
            name = $2; sub(/\(.*/, "", name)
            print (panics ? "twin " : "model ") name
            inside = 1; test = 0
        }
        inside && match($0, /(twin|without)\("[A-Z][A-Z]_[0-9]+"/) {
            call = substr($0, RSTART, RLENGTH); split(call, part, "\"")
            print (call ~ /^twin/ ? "weakens " : "removes ") part[2] " " name
        }
        /^}/ { inside = 0 }'
}

# The labels of a section of docs/ordering.md, which lists them as "- **XX_N** ...".
listed() { # ROOT HEADING
    sed -n "/^## $2\$/,/^## /p" "$1/docs/ordering.md" | sed -nE 's/^- \*\*([A-Z]{2}_[0-9]+)\*\*.*/\1/p' | sort
}

failed=0
report() { # MESSAGE LABELS
    [ -z "$2" ] || { echo "$1: $(tr '\n' ' ' <<<"$2")"; failed=1; }
}

check() { # ROOT
    local root=$1 used source fences table found models twins hand weakened removed exempt
    failed=0
    used=$(grep -rhoE 'ord!\([^,]*,' "$root/src" --include='*.rs' | grep -oE '[A-Z]{2}_[0-9]+' | sort)
    source=$(uniq <<<"$used")
    [ -n "$source" ] || { echo "no label found in src/"; return 1; }
    fences=$(grep -rhoE 'ord!\([A-Z]{2}_[0-9]+, SeqCst' "$root/src" | grep -oE '[A-Z]{2}_[0-9]+' | sort -u)
    table=$(sed -nE 's/^\| ([A-Z]{2}_[0-9]+) \|.*/\1/p' "$root/docs/ordering.md" | sort)
    found=$(tests "$root")
    models=$(sed -nE 's/^model //p' <<<"$found" | grep -oE '^([a-z]{2}_[0-9]+_)+' | grep -oE '[a-z]{2}_[0-9]+' | tr a-z A-Z | sort -u)
    twins=$(sed -nE 's/^twin ([a-z]{2}_[0-9]+)_weakened.*/\1/p' <<<"$found" | tr a-z A-Z | sort -u)
    weakened=$(sed -nE 's/^weakens ([A-Z]{2}_[0-9]+) .*/\1/p' <<<"$found" | sort -u)
    removed=$(sed -nE 's/^removes ([A-Z]{2}_[0-9]+) .*/\1/p' <<<"$found" | sort -u)
    hand=$(listed "$root" "Twins by hand")
    exempt=$(listed "$root" "Labels without a twin")

    report "in src/ but not in docs/ordering.md" "$(comm -23 <(echo "$source") <(uniq <<<"$table"))"
    report "in docs/ordering.md but not in src/" "$(comm -13 <(echo "$source") <(uniq <<<"$table"))"
    report "twice in docs/ordering.md" "$(uniq -d <<<"$table")"
    # Each fence of the doorbell's pair is one access; the pair is DB_1 with DB_2.
    report "at one end only" "$(uniq -u <<<"$used" | grep -vxF "$fences" || true)"
    report "test of an unknown label" "$(comm -13 <(echo "$source") <(sort -u <<<"$models"$'\n'"$twins"$'\n'"$weakened" | grep .))"
    report "without a model" "$(comm -23 <(echo "$source") <(sort -u <<<"$models"$'\n'"$exempt"))"
    report "without a twin" "$(comm -23 <(echo "$source") <(sort -u <<<"$twins"$'\n'"$exempt"))"
    report "its twin weakens nothing" "$(comm -23 <(echo "$twins") <(sort -u <<<"$weakened"$'\n'"$hand"))"
    report "a fence without a twin that has none" "$(comm -23 <(echo "$fences") <(echo "$removed"))"
    report "no exception any more" "$(comm -12 <(sort -u <<<"$twins" | comm -12 - <(echo "$models")) <(grep . <<<"$exempt" || true))"
    # A test that weakens another label than it is named after proves nothing about its own.
    report "weakens another label" "$(awk '$1 ~ /^(weakens|removes)$/ && $3 !~ "^" tolower($2) "_weakened" { print $3 }' <<<"$found")"
    [ "$failed" -eq 0 ] || return 1
    echo "$(wc -l <<<"$source") labels: $(wc -l <<<"$models") with a model, $(wc -l <<<"$twins") with a twin"
}

# Plants a fault in a copy, by sed in one file, and demands that it is found.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
plant() { # EXPECTED FILE SED
    local out
    rm -rf "${scratch:?}"/*
    cp -r --parents src docs/ordering.md loom-tests "$scratch"
    sed -i -E "$3" "$scratch/$2"
    if cmp -s "$2" "$scratch/$2"; then
        echo "error: nothing was planted in $2 by $3" >&2
        exit 1
    fi
    if out=$(check "$scratch") || ! grep -q "^$1: " <<<"$out"; then
        printf '%s\nerror: planted and not found: %s, by %s in %s\n' "$out" "$1" "$3" "$2" >&2
        exit 1
    fi
}

check .
plant "in src/ but not in docs/ordering.md" src/ring.rs 's/ord!\(CQ_1/ord!(CQ_9/'
plant "without a model" src/ring.rs 's/ord!\(CQ_1/ord!(CQ_9/'
plant "without a twin" src/ring.rs 's/ord!\(CQ_1/ord!(CQ_9/'
plant "in docs/ordering.md but not in src/" docs/ordering.md 's/^\| CQ_1 (.*)/&\n| CQ_9 \1/'
plant "at one end only" src/slot.rs 's/ord!\(SL_2, Acquire\)/Ordering::Acquire/'
plant "without a model" loom-tests/slot.rs 's/^fn cq_1_a/fn a/'
plant "without a twin" loom-tests/slot.rs 's/^fn cq_1_weakened/fn weakened/'
plant "without a twin" loom-tests/slot.rs '/expected = "a hint was ignored"/d'
plant "its twin weakens nothing" loom-tests/slot.rs 's/twin\("CQ_1", /check(/'
plant "a fence without a twin that has none" loom-tests/doorbell.rs 's/without\("DB_2", /check(/'
plant "weakens another label" loom-tests/slot.rs 's/twin\("SL_2"/twin("SL_1"/'
echo "11 planted faults found"
