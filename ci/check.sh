#!/usr/bin/env bash
# Every check, one script each, cheap ones first; ends at the first that fails. Prints how long each took.
# Arguments choose some of them: ci/check.sh lint structure
set -euo pipefail
cd "$(dirname "$0")/.."

checks=("$@")
[ ${#checks[@]} -gt 0 ] ||
    checks=(deps structure lint test single_step c install c-host nopanic instructions model kill sanitize loom fuzz)

summary=""
for check in "${checks[@]}"; do
    printf '\n==== ci/%s.sh\n' "$check"
    begin=$SECONDS
    if ! "ci/$check.sh"; then
        printf '%s\n==== ci/%s.sh FAILED after %d s\n' "$summary" "$check" $((SECONDS - begin)) >&2
        exit 1
    fi
    summary+=$(printf '\n%-12s %5d s' "$check" $((SECONDS - begin)))
    printf '==== ci/%s.sh took %d s\n' "$check" $((SECONDS - begin))
done
printf '\nAll checks passed.%s\n%-12s %5d s\n' "$summary" all $SECONDS
