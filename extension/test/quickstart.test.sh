# The quick start as the manual has it: its settings and its statements, on a new cluster. Only the program and the data
# directory are this test's. README.md has the same, and every setting is in the manual.
manual=$1/../README.md readme=$1/../../README.md

# Block N of a section; without N all of them.
block() { # FILE SECTION [N]
    awk -v section="## $2" -v wanted="${3:-0}" '
        /^## / { inside = $0 == section }
        !inside { next }
        /^```/ { open = !open; n += open; next }
        open && (wanted == 0 || n == wanted)' "$1"
}
diff <(block "$readme" 'In PostgreSQL') <(block "$manual" 'Quick start') >"$WORK/said" || fail "README.md: $(cat "$WORK/said")"

make_cluster a
sed -i -E '/^(shared_preload_libraries|shmuring\.)/d' "$WORK/a/postgresql.conf"
start a 5001
region=/dev/shm/shmuring.$(ask 5001 'SELECT system_identifier FROM pg_control_system()').5001
trap 'rm -f "$region"; cleanup' EXIT
block "$manual" 'Quick start' 2 |
    sed "s|/usr/local/bin/shmuring|$(command -v shmuring)|; s|/var/lib/postgresql/15/main|$WORK/a|" >>"$WORK/a/postgresql.conf"
[ "$(grep -c "$WORK/a'\$" "$WORK/a/postgresql.conf")" = 1 ] || fail 'the data directory is not in the settings'
stop a
start a 5001
block "$manual" 'Quick start' 3 >"$WORK/statements.sql"
psql -h "$sockets" -p 5001 -U postgres -XAtq -v ON_ERROR_STOP=1 -f "$WORK/statements.sql" >"$WORK/said" 2>&1 ||
    fail "$(cat "$WORK/said")"
grep -Eqx '3\|[0-9]+\|\(0,3\)' "$WORK/said" || fail "$(cat "$WORK/said")"
grep -q "^$region|t|" "$WORK/said" || fail "$(cat "$WORK/said")"

settings=$(ask 5001 "SELECT name FROM pg_settings WHERE name LIKE 'shmuring.%' ORDER BY name COLLATE \"C\"")
told=$(sed -n '/^## Settings/,/^## [^S]/s/^| `\(shmuring\.[a-z_]*\)` |.*/\1/p' "$manual" | LC_ALL=C sort)
[ "$settings" = "$told" ] || fail "the settings are $settings; the manual has $told"
stop a
