#!/usr/bin/env bash
# Every check, one script each. Without arguments in two lanes beside each other, since many leave a processor idle for
# long; at the first that fails the other is ended too. What a check prints is shown whole when it has ended, and how
# long it took. Arguments choose some of them, one after the other: ci/check.sh structure lint
set -euo pipefail
cd "$(dirname "$0")/.."

# What the others need, and what takes a moment; then the lanes. In one lane are those that would wait for each other's
# builds, or overwrite them: all of target/debug and target/checked in the first, all of target/release in the second.
first=(deps structure)
lanes=(
    "lint test single_step kill c-host postgres loom"
    "nopanic install pg_headers model instructions sanitize fuzz"
)
if [ $# -gt 0 ]; then
    first=("$@")
    lanes=()
fi

scratch=$(mktemp -d)
declare -A running=() # by pid: the check
summary=""
# Each check is a job with a process group of its own, so that all of it can be ended.
set -m
end_all() {
    local pid
    for pid in "${!running[@]}"; do kill -TERM -- "-$pid" 2>/dev/null || true; done
    for pid in "${!running[@]}"; do wait "$pid" 2>/dev/null || true; done
}
interrupted() {
    local check
    printf '%s\n==== interrupted in: %s\n' "$summary" "${running[*]}" >&2
    for check in "${running[@]}"; do tail -n 100 "$scratch/$check.log" 2>/dev/null || true; done
    exit 130
}
trap 'end_all; rm -rf "$scratch"' EXIT
trap interrupted INT TERM

begin() { # CHECK
    printf '==== ci/%s.sh begins\n' "$1"
    date +%s >"$scratch/$1.begin"
    if [ ${#lanes[@]} -eq 0 ]; then
        "ci/$1.sh" &
    else
        "ci/$1.sh" >"$scratch/$1.log" 2>&1 </dev/null &
    fi
    running[$!]=$1
}

# Waits until one of those that run has ended, and tells of it; leaves its name in $ended.
await() {
    local pid="" status=0 seconds
    wait -n -p pid "${!running[@]}" || status=$?
    ended=${running[$pid]}
    unset "running[$pid]"
    seconds=$(($(date +%s) - $(<"$scratch/$ended.begin")))
    if [ -f "$scratch/$ended.log" ]; then
        printf '\n==== ci/%s.sh\n' "$ended"
        cat "$scratch/$ended.log"
    fi
    if [ "$status" -ne 0 ]; then
        printf '%s\n==== ci/%s.sh FAILED after %d s\n' "$summary" "$ended" "$seconds" >&2
        [ ${#running[@]} -eq 0 ] || printf '==== ended with it: %s\n' "${running[*]}" >&2
        exit 1
    fi
    summary+=$(printf '\n%-12s %5d s' "$ended" "$seconds")
    printf '==== ci/%s.sh took %d s\n' "$ended" "$seconds"
}

for check in "${first[@]}"; do
    begin "$check"
    await
done
declare -A next=() # of its lane, by check
for lane in "${lanes[@]}"; do
    read -ra checks <<<"$lane"
    for i in "${!checks[@]}"; do next[${checks[i]}]=${checks[i + 1]:-}; done
    begin "${checks[0]}"
done
while [ ${#running[@]} -gt 0 ]; do
    await
    [ -z "${next[$ended]}" ] || begin "${next[$ended]}"
done
printf '\nAll checks passed.%s\n%-12s %5d s\n' "$summary" all $SECONDS
