#!/usr/bin/env bash
# Installs what the checks need and a fresh Debian may lack. Asks the package servers only if something is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=()
# Adds a package unless the command is there.
need() { # COMMAND PACKAGE
    command -v "$1" >/dev/null || packages+=("$2")
}

need gcc gcc                   # links Rust programs; compiles the C tests
need g++ g++                   # the C++ tests
need clang clang               # every C and C++ test is compiled by both
need make make                 # how the checks are called
need pkg-config pkg-config     # the C tests build with the installed .pc file
need openssl openssl           # makes the certificates of the TLS tests
need unshare util-linux        # tests of a full disk mount a small file system in a namespace of their own
need spin spin               # the formal model
need setpriv util-linux        # servers refuse root, so tests start them as another user
# A real cluster is the input of communicator/tests/pgdata.rs.
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || packages+=(postgresql)
need valgrind valgrind         # counts the instructions of each step; the C tests run under it

if [ ${#packages[@]} -gt 0 ]; then
    echo "missing: ${packages[*]}"
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "error: run as root on Debian 'apt-get install --no-install-recommends ${packages[*]}'" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${packages[@]}"
fi

command -v cargo >/dev/null || { echo "error: no cargo: install Rust, see https://rustup.rs" >&2; exit 1; }
for tool in fmt clippy; do
    cargo "$tool" --version >/dev/null 2>&1 && continue
    component=${tool/fmt/rustfmt}
    echo "missing: $component"
    rustup component add "$component" || { echo "error: install the Rust component $component" >&2; exit 1; }
done

# ThreadSanitizer needs the sources of the standard library; ci/sanitize.sh skips it, and says so, where there are none.
if [ ! -f "$(rustc --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock" ]; then
    rustup component add rust-src || echo "note: no component rust-src" >&2
fi

cargo --version
cargo fmt --version
cargo clippy --version
/usr/lib/postgresql/*/bin/postgres --version
