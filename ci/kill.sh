#!/usr/bin/env bash
# Kills backends and communicators under full load, and proves from the logs of all of them that nothing was lost,
# doubled, swapped, late, or written to a cancelled buffer: ci/kill.sh [backend-kills] [communicator-kills] [seed]
#
# The seed is printed and replays the order of the kills. On a failure the state of every slot is printed, and the
# directory that is named keeps the logs and the store.
set -euo pipefail
cd "$(dirname "$0")/.."

kills=${1:-1000}
communicator_kills=${2:-100}
seed=${3:-}

ci/checked.sh --quiet --no-run
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${CARGO_TARGET_DIR:-target}/checked/shmuring" torture --kills "$kills" --communicator-kills "$communicator_kills" \
    ${seed:+--seed "$seed"} | tee "$scratch/out"
# Logs without deaths at work, leftovers, cancels or canaries have no fault, and show nothing. With a hundred kills there
# are hundreds of each.
[ "$kills" -lt 100 ] || grep '^in all: ' "$scratch/out" | tail -1 | awk '
    { while (match($0, /[0-9]+ [a-z]/)) { if (substr($0, RSTART) + 0 == 0) none = 1; n++; $0 = substr($0, RSTART + RLENGTH) } }
    END { exit !(n >= 10 && !none) }' || { echo "error: something was never put to the test, see above" >&2; exit 1; }
