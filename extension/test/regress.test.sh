# `make installcheck`: extension/sql against extension/expected.
make_cluster a
start a 5001
PGHOST=$sockets PGPORT=5001 PGUSER=postgres make --silent -C "$1/.." PG_CONFIG="$PG_CONFIG" with_llvm=no installcheck \
    >"$WORK/said" 2>&1 || fail "$(cat "$WORK/said" "$1/../regression.diffs" 2>/dev/null)"
stop a
