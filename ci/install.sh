#!/usr/bin/env bash
# The C library as its users get it: `make install` below a DESTDIR, and from there alone what it exports, the examples
# against each other, and a shared library that contains it, beside it in one process.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

scratch=$(mktemp -d)
children=()
cleanup() {
    local pid
    for pid in "${children[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
    rm -rf "$scratch"
}
trap cleanup EXIT
fail() { echo "error: $*" >&2; exit 1; }

tree=$scratch/tree
make --silent install DESTDIR="$tree" PREFIX=/opt/shmuring
libraries=$tree/opt/shmuring/lib
export PKG_CONFIG_PATH=$libraries/pkgconfig LD_LIBRARY_PATH=$libraries
version=$(pkg-config --modversion shmuring)
shared=$libraries/libshmuring.so.$version

# 1. Exports: what the headers declare, what the map lists and what the library exports are the same.
printf '#include <shmuring.h>\n#include <shmuring/host.h>\n' >"$scratch/all.h"
# shellcheck disable=SC2046 # lists of options, here and below
cc -E -P $(pkg-config --cflags shmuring) "$scratch/all.h" | grep -oE '\bshmuring_[a-z0-9_]*[a-z0-9] *\(' | tr -d ' (' |
    sort -u >"$scratch/declared"
grep -oE '^\s+shmuring_[a-z0-9_]+;$' ffi/libshmuring.map | tr -d '\t ;' | sort >"$scratch/listed"
nm -D --defined-only "$shared" | awk '$2 != "A" { print $3 }' | sort >"$scratch/exported"
sed 's/$/@@SHMURING_0.1/' "$scratch/listed" | diff - "$scratch/exported" || fail "the map (<) and the library (>) differ"
diff "$scratch/declared" "$scratch/listed" || fail "the headers (<) and the map (>) differ"
readelf -d "$shared" | grep -q "SONAME.*\[libshmuring.so.${version%%.*}\]" || fail "the soname is wrong"
[ "$(readlink -f "$libraries/libshmuring.so")" = "$(readlink -f "$shared")" ] || fail "the links lead elsewhere"

# 2. The examples, compiled as they say.
warnings=(-Wall -Wextra -Wpedantic -Wconversion -Werror)
for example in backend host communicator; do
    cc "${warnings[@]}" "ffi/examples/$example.c" -o "$scratch/$example" $(pkg-config --cflags --libs shmuring)
done
# Starts a server and waits until it says so; its pid is in $server then.
serve() { # PROGRAM ARGUMENT...
    "$@" >"$scratch/said" 2>&1 &
    server=$!
    children+=("$server")
    for _ in $(seq 1 300); do
        ! grep -q serving "$scratch/said" || return 0
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    fail "$1 does not serve: $(cat "$scratch/said")"
}
ends() { # SIGNAL WANTED
    local status=0
    kill "-$1" "$server"
    # The shell says that it was killed.
    wait "$server" 2>/dev/null || status=$?
    [ "$status" -eq "$2" ] || fail "the server ended with $status in place of $2: $(cat "$scratch/said")"
}
serve "$scratch/communicator" "$scratch/ring"
"$scratch/backend" "$scratch/ring" >"$scratch/out" || fail "$(cat "$scratch/out")"
grep -qx 'the page is the same' "$scratch/out"
ends TERM 0
# One after the other, over a region of their own: killed, the next takes over, and finds what was written.
serve "$scratch/host" "$scratch/ring-of-hosts" "store:$scratch/pages"
"$scratch/backend" "$scratch/ring-of-hosts" >"$scratch/out" || fail "$(cat "$scratch/out")"
grep -qx 'create: success' "$scratch/out"
ends KILL 137
serve "$scratch/host" "$scratch/ring-of-hosts" "store:$scratch/pages"
grep -q 'epoch=2' "$scratch/said" || fail "the second says $(cat "$scratch/said")"
"$scratch/backend" "$scratch/ring-of-hosts" >"$scratch/out" || fail "$(cat "$scratch/out")"
grep -qx 'create: there already' "$scratch/out"
ends TERM 0

# 3. A shared library that contains the static one exports its own functions and nothing else.
exports() { # FILE
    nm -D --defined-only "$1" | awk '{ print $3 }' | sort | xargs
}
cp ffi/tests/install/extension.[ch] ffi/tests/install/Makefile "$scratch"
cc -shared -fPIC "${warnings[@]}" "$scratch/extension.c" -o "$scratch/extension.so" \
    $(pkg-config --cflags shmuring) $(pkg-config --variable=static_link shmuring)
got=$(exports "$scratch/extension.so")
[ "$got" = "extension_serve extension_version" ] || fail "the extension exports $got"
cc "${warnings[@]}" ffi/tests/install/both.c -o "$scratch/both" $(pkg-config --cflags --libs shmuring) -ldl -pthread
"$scratch/both" "$scratch/extension.so" "$scratch/ring-of-both" || fail "two copies in one process"
if pgxs=$(pg_config --pgxs 2>/dev/null) && [ -f "$pgxs" ]; then
    rm "$scratch/extension.so"
    # PostgreSQL compiles its own headers with fewer warnings; what it says of ours is an error.
    make --silent -C "$scratch" PG_CFLAGS=-Werror with_llvm=no
    got=$(exports "$scratch/extension.so")
    [ "$got" = "extension_serve extension_version" ] || fail "the extension by PGXS exports $got"
    "$scratch/both" "$scratch/extension.so" "$scratch/ring-of-pgxs" || fail "two copies in one process, by PGXS"
else
    echo "note: there is no PGXS here: the link line was not tried with it"
fi

# 4. Nothing is left behind.
make --silent uninstall DESTDIR="$tree" PREFIX=/opt/shmuring
left=$(find "$tree" -type f -o -type l)
[ -z "$left" ] || fail "uninstall has left $left"

cd "$root"
size() { stat -c %s "$1"; }
built=${CARGO_TARGET_DIR:-target}/c
echo "$(wc -l <"$scratch/exported") functions; libshmuring.so $(size "$built/libshmuring.so.$version") bytes," \
    "libshmuring.a $(size "$built/libshmuring.a") bytes"
