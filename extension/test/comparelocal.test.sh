# shmuring.debug_compare_local: pages that reads bring are compared with the server's own, as far as is asked for.
. "$1/pair.sh"

make_pair <<'SQL'
CREATE TABLE t AS SELECT i, repeat('x', 500) AS text FROM generate_series(1, 500) i;
CREATE ROLE other LOGIN;
SQL
settle
stop standby
file=$WORK/standby/$(ask 5001 "SELECT pg_relation_filepath('t')")
for block in 3 4 5; do
    printf 'y' | dd of="$file" bs=1 seek=$((block * 8192 + 8192 - 50)) conv=notrunc status=none
done
start standby 5002
preload primary 5001 "standby:host=$sockets port=5002 user=postgres dbname=postgres" \
    "shmuring.serve_options = '--cache-memory 16'"

read_one() { # BLOCK [SETTING]: what is said of it
    ask 5001 "${2:+SET shmuring.debug_compare_local = $2;} SELECT length(shmuring_read_page('t', 'main', $1))" \
        2>"$WORK/said" >/dev/null || fail "$(cat "$WORK/said")"
    sed -nE 's/^WARNING:  a page from the (.*) differs from the one here: (.*) of .* main block ([0-9]+)$/\1:\2:\3/p' \
        "$WORK/said"
}
says() { # WANTED BLOCK [SETTING]
    local got
    got=$(read_one "$2" "${3:-}")
    [ "$got" = "$1" ] || fail "block $2 with ${3:-no setting}: '$got', not '$1'; $(cat "$WORK/said")"
}
counted() { # COMPARED DIFFERED
    gives 5001 "$1|$2" "SELECT max(value) FILTER (WHERE name = 'compared'), max(value) FILTER (WHERE name = 'differed')
        FROM pg_stat_shmuring WHERE part = 'debug_compare_local'"
}

# Off until it is asked for.
says '' 3
counted 0 0
# For all sessions, while they run.
ask 5001 "ALTER SYSTEM SET shmuring.debug_compare_local = 'all'"
ask 5001 'SELECT pg_reload_conf()' >/dev/null
until_true is_true 5001 "SELECT setting = 'all' FROM pg_settings WHERE name = 'shmuring.debug_compare_local'"
says 'page cache:bytes:3' 3
grep -q 'offset 8142' "$WORK/said" || fail "$(cat "$WORK/said")"
grep -q 'WARNING:  a page from the page cache differs from the one here: bytes' "$WORK/primary.log" || fail 'not in the log'
says 'page service:bytes:4' 4
says '' 0
counted 3 2
# For one: pages that came from the caches alone, or from the prefetch buffer alone.
says '' 4 none
says 'page cache:bytes:4' 4 lfc
says '' 4 prefetch
says '' 1 lfc
counted 4 3
prefetches() {
    ask 5001 "SELECT value FROM pg_stat_shmuring WHERE part = 'communicator' AND name = 'prefetch_hits'"
}
for setting in prefetch lfc; do
    hits=$(prefetches)
    block=$([ $setting = prefetch ] && echo 5 || echo 6)
    prefetch t $block 1
    says "$([ $setting = prefetch ] && echo prefetch buffer:bytes:5)" $block $setting
    [ "$(prefetches)" -gt "$hits" ] || fail "block $block was not in the prefetch buffer"
done
counted 6 4
# In use: what changes between the answer and the look is no difference.
echo "UPDATE t SET i = -i WHERE ctid < '(1,1)'; SELECT shmuring_read_page('t', 'main', 0)" >"$WORK/changes.sql"
pgbench -h "$sockets" -p 5001 -U postgres -n -c 2 -t 100 -f "$WORK/changes.sql" postgres >"$WORK/pgbench" 2>&1 ||
    fail "$(cat "$WORK/pgbench")"
! grep -q WARNING "$WORK/pgbench" || fail "$(cat "$WORK/pgbench")"
is_true 5001 "SELECT max(value) FILTER (WHERE name = 'compared') > 6 AND max(value) FILTER (WHERE name = 'differed') = 4
    FROM pg_stat_shmuring WHERE part = 'debug_compare_local'" || fail 'nothing was compared, or it differed'
ask 5001 'SELECT shmuring_stat_reset()' >/dev/null
counted 0 0
! psql -h "$sockets" -p 5001 -U other -XAtq postgres -v ON_ERROR_STOP=1 2>"$WORK/said" \
    <<<"SET shmuring.debug_compare_local = 'all'" || fail 'anybody may switch it'
grep -q 'permission denied' "$WORK/said" || fail "$(cat "$WORK/said")"
stop standby immediate
stop primary immediate
