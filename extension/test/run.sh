#!/usr/bin/env bash
# Runs the tests beside it in real servers; ci/postgres.sh has prepared PATH and SCRATCH. Each is a script *.test.sh in
# a shell of its own, with the functions of lib.sh.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

tests=("$@")
[ ${#tests[@]} -gt 0 ] || mapfile -t tests < <(cd "$here" && printf '%s\n' *.test.sh | sed 's/\.test\.sh$//')
for test in "${tests[@]}"; do
    begin=$SECONDS
    WORK=$SCRATCH/$test bash -euo pipefail -c '. "$1/lib.sh"; . "$1/$2.test.sh"' run "$here" "$test" || {
        echo "error: extension/test/$test.test.sh failed" >&2
        exit 1
    }
    echo "$test: passed in $((SECONDS - begin)) s"
done
