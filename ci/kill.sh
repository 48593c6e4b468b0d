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
"${CARGO_TARGET_DIR:-target}/checked/shmuring" torture --kills "$kills" --communicator-kills "$communicator_kills" \
    ${seed:+--seed "$seed"}
