#!/usr/bin/env bash
# The extension in real PostgreSQL servers: builds it and runs its tests, as a user who is not root, in directories of
# its own. Nothing is installed into the system: the servers run from a copy of PostgreSQL's tree, which finds its
# libraries and extensions beside itself, and DESTDIR puts the extension there.
#
# PG_MAJOR (15): the version, as Debian packages it. Arguments: tests of extension/test to run; all without any.
set -euo pipefail
cd "$(dirname "$0")/.."

major=${PG_MAJOR:-15}
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
lib=usr/lib/postgresql/$major share=usr/share/postgresql/$major
pg_config=/$lib/bin/pg_config

missing() { # PACKAGE...
    if [ "$(id -u)" -ne 0 ]; then
        echo "error: run as root 'apt-get install --no-install-recommends $*'" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # Servers that the package would start are none of the tests'.
    apt-get install -y -qq --no-install-recommends "$@"
}
[ -f "/usr/include/postgresql/$major/server/postgres.h" ] && [ -x "/$lib/bin/initdb" ] ||
    missing "postgresql-$major" "postgresql-server-dev-$major"

scratch=$(mktemp -d /tmp/shmuring-pg.XXXXXX)
trap 'rm -rf "$scratch"' EXIT
chmod 755 "$scratch"

# The library, the communicator, and PostgreSQL's tree.
tree=$scratch/tree
# As the other checks build it: then a library with a communicator inside, of every page service, costs no build of its
# own. With debug assertions, in backends too.
ci/checked.sh --quiet --no-run
CARGO_TARGET_DIR=$scratch/c LIBRARY=$target/checked/deps/libshmuring_ffi.a DESTDIR=$scratch/library PREFIX=/usr \
    ffi/install.sh install
mkdir -p "$tree/$lib" "$tree/$share" "$tree/usr/bin"
cp -a "/$lib/." "$tree/$lib"
cp -aL "/$share/." "$tree/$share"
cp "$target/checked/shmuring" "$tree/usr/bin/"
rm -f "$tree/$lib/lib/shmuring.so" "$tree/$share/extension"/shmuring*

# PGXS builds where the sources are. Tests follow the manuals.
cp -r extension "$scratch/build"
rm -f "$scratch"/build/*.{o,so}
cp README.md "$scratch/"
export PKG_CONFIG_PATH=$scratch/library/usr/lib/pkgconfig
pgxs() { make --silent -C "$scratch/build" PG_CONFIG="$pg_config" with_llvm=no "$@"; }
pgxs PG_CFLAGS='-Werror -Wno-error=vla' TEST_FUNCTIONS=1
pgxs install TEST_FUNCTIONS=1 DESTDIR="$tree" >/dev/null
exported=$(nm -D --defined-only "$tree/$lib/lib/shmuring.so" | awk '{ print $3 }')
if foreign=$(grep -Ev '^(Pg_magic_func|_PG_init|(pg_finfo_)?shmuring_[a-z_]+)$' <<<"$exported"); then
    echo "error: the extension exports what no caller of PostgreSQL needs: $foreign" >&2
    exit 1
fi

# Servers refuse root.
as_user=(env -i)
if [ "$(id -u)" -eq 0 ]; then
    chown -R postgres: "$scratch"
    # A region that is another user's, and everybody's to write: root alone can make one for the tests.
    "$tree/usr/bin/shmuring" region create --region "$scratch/foreign.region" >/dev/null
    chown nobody "$scratch/foreign.region"
    chmod 666 "$scratch/foreign.region"
    as_user=(setpriv --reuid=postgres --regid=postgres --init-groups --no-new-privs env -i)
fi
"${as_user[@]}" PATH="$tree/$lib/bin:$tree/usr/bin:/usr/bin:/bin" HOME="$scratch" LANG=C.UTF-8 \
    SCRATCH="$scratch" PG_CONFIG="$pg_config" PKG_CONFIG_PATH="$PKG_CONFIG_PATH" "$scratch/build/test/run.sh" "$@"
