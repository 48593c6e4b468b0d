#!/usr/bin/env bash
# The tests of the communicator and of the C interface, optimised, with the checks of a debug build. Other checks that
# run the same programs build them so too, with --no-run: by themselves they would be built again, since tests have more
# features of some dependencies enabled.
set -euo pipefail
cd "$(dirname "$0")/.."

exec cargo test --profile checked -p shmuring-communicator -p shmuring-ffi \
    --features shmuring-ffi/grpc,shmuring-ffi/standby "$@"
