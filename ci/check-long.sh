#!/usr/bin/env bash
# The checks whose strength is in numbers, for hours: ci/check-long.sh [loom|kill|single_step|fuzz|sanitize|proto ...]
# Every one is run, whatever became of those before it; fails if one of them did. Prints how long each took.
#
#   loom         10,000,000 random schedules, shared out to the shuttle models: an hour. The loom models are exhaustive as
#                they are
#   kill         100,000 kills of backends and 10,000 of communicators under load, one after the other: some three hours
#   single_step  a kill at every instruction, ten times over, since what sleepers do meanwhile differs: 20 minutes
#   fuzz         an hour for each target, two at a time: four hours for the eight that there are
#   sanitize     as on demand
#   proto        whether the Rust of the protocol files is what their compiler makes of them
#
# The times are those of two cpus with nothing else to do; all of it takes some nine hours.
#
# Numbers are taken from the environment where they are set there, so that a part of a night can be used:
# SHMURING_SCHEDULES, SHMURING_KILLS, SHMURING_COMMUNICATOR_KILLS, SHMURING_SEED, SHMURING_ROUNDS, SHMURING_FUZZ_SECONDS.
set -euo pipefail
cd "$(dirname "$0")/.."

parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(loom kill single_step fuzz sanitize proto)

run() { # PART
    case $1 in
        loom) SHMURING_SCHEDULES=${SHMURING_SCHEDULES:-10000000} ci/loom.sh ;;
        kill)
            ci/kill.sh "${SHMURING_KILLS:-100000}" "${SHMURING_COMMUNICATOR_KILLS:-10000}" ${SHMURING_SEED:+"$SHMURING_SEED"}
            ;;
        single_step)
            local i rounds=${SHMURING_ROUNDS:-10}
            for ((i = 1; i <= rounds; i++)); do
                echo "round $i of $rounds"
                ci/single_step.sh || return 1
            done
            ;;
        fuzz) ci/fuzz.sh "${SHMURING_FUZZ_SECONDS:-3600}" ;;
        sanitize) ci/sanitize.sh ;;
        proto) ci/proto.sh --check ;;
        *)
            echo "error: no part is called $1" >&2
            return 1
            ;;
    esac
}

summary=""
failed=0
for part in "${parts[@]}"; do
    printf '\n==== %s, at length\n' "$part"
    begin=$SECONDS
    verdict=passed
    run "$part" || verdict=FAILED
    [ "$verdict" = passed ] || failed=1
    summary+=$(printf '\n%-12s %6d s  %s' "$part" $((SECONDS - begin)) "$verdict")
done
printf '\n%s\n' "$summary"
exit $failed
