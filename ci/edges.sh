#!/usr/bin/env bash
# Compares the labels of memory orderings: in src/, in the table of docs/ordering.md, and in the model checks.
# Fails if a label of src/ is missing in the table or the other way round, or is on one access alone. Prints the labels
# that no model names, and those without a twin.
set -euo pipefail
cd "$(dirname "$0")/.."

used=$(grep -rhoE 'ord!\([^,]*,' src --include='*.rs' | grep -oE '[A-Z]{2}_[0-9]+' | sort)
source=$(uniq <<<"$used")
table=$(sed -nE 's/^\| ([A-Z]{2}_[0-9]+) \|.*/\1/p' docs/ordering.md | sort)
twins=$(grep -rhoE 'twin\("[A-Z]{2}_[0-9]+"' loom-tests | grep -oE '[A-Z]{2}_[0-9]+' | sort -u)
models=$(grep -rhE '^ *fn [a-z]{2}_[0-9]+' loom-tests | grep -v weakened | grep -oE '[a-z]{2}_[0-9]+' | tr a-z A-Z | sort -u)

failed=0
report() { # message, labels
    [ -z "$2" ] || { echo "$1: $(tr '\n' ' ' <<<"$2")"; return 1; }
}
[ -n "$source" ] || { echo "no label found in src/"; exit 1; }
report "in src/ but not in docs/ordering.md" "$(comm -23 <(echo "$source") <(sort -u <<<"$table"))" || failed=1
report "in docs/ordering.md but not in src/" "$(comm -13 <(echo "$source") <(sort -u <<<"$table"))" || failed=1
report "twice in docs/ordering.md" "$(uniq -d <<<"$table")" || failed=1
# Each fence of the doorbell's pair is one access; the pair is DB_1 with DB_2.
report "at one end only" "$(uniq -u <<<"$used" | grep -v '^DB_' || true)" || failed=1
report "twin of an unknown label" "$(comm -13 <(echo "$source") <(echo "$twins"))" || failed=1
report "note: without a model" "$(comm -23 <(echo "$source") <(echo "$models"))" || true
report "note: without a twin" "$(comm -23 <(echo "$source") <(echo "$twins"))" || true
echo "$(wc -l <<<"$source") labels, $(wc -l <<<"$twins") with a twin"
exit $failed
