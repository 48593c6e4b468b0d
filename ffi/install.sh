#!/usr/bin/env bash
# Builds, installs and removes the C library: ffi/install.sh build | install | uninstall
#
# PREFIX (/usr/local), LIBDIR ($PREFIX/lib), INCLUDEDIR ($PREFIX/include): where it will be found. DESTDIR: put before all
# of them while installing. FEATURES (host): `host,grpc,standby` for a host with every page service that `shmuring serve`
# has, `host` with stores and data directories alone, `communicator` without the communicator of shmuring and its
# threads, `none` for backends alone. LIBRARY: a static library that was built before, in place of building one.
#
# The shared library is linked from the static one, with our own version script: rustc writes one for a cdylib, without
# versions, and takes no other beside it.
set -euo pipefail
umask 022

command=${1:-}
prefix=${PREFIX:-/usr/local}
libdir=${LIBDIR:-$prefix/lib}
includedir=${INCLUDEDIR:-$prefix/include}
destdir=${DESTDIR:-}
features=${FEATURES:-host}
[ "$features" != none ] || features=

cd "$(dirname "$0")"
target=${CARGO_TARGET_DIR:-../target}
built=$target/c
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' ../Cargo.toml | head -n 1)
major=${version%%.*}

build() {
    mkdir -p "$built"
    # rustc alone knows what its standard library needs of the system, and says it in a note.
    if [ -n "${LIBRARY:-}" ]; then
        rustc --crate-type staticlib --crate-name nothing --out-dir "$built" --print native-static-libs - \
            <<<'' 2>"$built/notes"
        rm "$built/libnothing.a"
    else
        cargo rustc --release --quiet -p shmuring-ffi --lib --crate-type staticlib --no-default-features \
            --features "$features" -- --print native-static-libs 2> >(tee "$built/notes" | grep -v '^note: ' >&2)
    fi
    native=$(sed -n 's/^note: native-static-libs: //p' "$built/notes" | tail -n 1)
    [ -n "$native" ] || { echo "error: rustc did not say what the static library needs" >&2; exit 1; }
    cp "${LIBRARY:-$target/release/libshmuring_ffi.a}" "$built/libshmuring.a"
    strip --strip-debug "$built/libshmuring.a"
    # nodelete: its threads and thread-locals must not outlive its code.
    # shellcheck disable=SC2086 # a list of options
    "${CC:-cc}" -shared -o "$built/libshmuring.so.$version" -Wl,-soname,"libshmuring.so.$major" \
        -Wl,--version-script=libshmuring.map -Wl,--whole-archive "$built/libshmuring.a" -Wl,--no-whole-archive \
        -Wl,--gc-sections -Wl,-z,defs,-z,relro,-z,now,-z,nodelete $native
    echo "$native" >"$built/native"
}

# Files of the installed tree, without DESTDIR.
headers() {
    (cd include && find . -name '*.h' -printf '%P\n' | sort)
}
libraries=("libshmuring.a" "libshmuring.so.$version" "libshmuring.so.$major" "libshmuring.so")

install_all() {
    # With root's hands and without its cargo: what `build` has left is taken.
    if command -v cargo >/dev/null; then build; fi
    [ -f "$built/native" ] || { echo "error: nothing is built: run 'make lib' first" >&2; exit 1; }
    local header
    while read -r header; do
        install -D -m 644 "include/$header" "$destdir$includedir/$header"
    done < <(headers)
    install -d "$destdir$libdir/pkgconfig"
    install -m 644 "$built/libshmuring.a" "$destdir$libdir/"
    install -m 755 "$built/libshmuring.so.$version" "$destdir$libdir/"
    ln -sf "libshmuring.so.$version" "$destdir$libdir/libshmuring.so.$major"
    ln -sf "libshmuring.so.$major" "$destdir$libdir/libshmuring.so"
    local to_prefix include
    to_prefix=$(realpath -ms --relative-to="$libdir/pkgconfig" "$prefix")
    include=$(realpath -ms --relative-to="$prefix" "$includedir")
    sed -e "s|@TO_PREFIX@|$to_prefix|; s|@INCLUDE@|$include|; s|@VERSION@|$version|; s|@NATIVE@|$(cat "$built/native")|" \
        shmuring.pc.in >"$destdir$libdir/pkgconfig/shmuring.pc"
    chmod 644 "$destdir$libdir/pkgconfig/shmuring.pc"
}

uninstall_all() {
    local name
    for name in "${libraries[@]}" pkgconfig/shmuring.pc; do rm -f "$destdir$libdir/$name"; done
    while read -r name; do rm -f "$destdir$includedir/$name"; done < <(headers)
    rmdir --ignore-fail-on-non-empty "$destdir$includedir/shmuring" 2>/dev/null || true
}

case $command in
    build) build ;;
    install) install_all ;;
    uninstall) uninstall_all ;;
    *)
        echo "usage: ffi/install.sh build | install | uninstall" >&2
        exit 2
        ;;
esac
