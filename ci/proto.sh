#!/usr/bin/env bash
# Makes the Rust of the page service's protocol, communicator/proto/*.rs, of the .proto files beside it:
#   ci/proto.sh           after a change of a .proto file
#   ci/proto.sh --check   fails if what is there is not what would be made
#
# Its result is under version control, so that nobody who builds the communicator needs the compilers of protocols, which
# take longer to build than all that they make. ci/structure.sh compares checksums at every check, and
# ci/check-long.sh calls --check.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")/proto
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cargo run --quiet --locked --manifest-path ci/proto/Cargo.toml --target-dir "$target" -- communicator/proto "$scratch"
cd communicator/proto
case ${1:-} in
    --check)
        for made in "$scratch"/*.rs; do
            diff "$(basename "$made")" "$made" || { echo "error: call ci/proto.sh" >&2; exit 1; }
        done
        echo "communicator/proto is up to date"
        ;;
    "")
        cp "$scratch"/*.rs .
        sha256sum ./*.proto ./*.rs >checksums
        ;;
    *) echo "usage: ci/proto.sh [--check]" >&2; exit 2 ;;
esac
