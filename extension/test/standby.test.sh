# The page service `standby`: pages of a hot standby through the ring, which lags, is stopped, killed, started anew and
# promoted.
. "$1/pair.sh"

region=/dev/shm/shmuring-test.$$
service="standby:host=$sockets port=5002 user=postgres dbname=postgres password=secret"
serve=
trap '[ -z "$serve" ] || kill -9 "$serve" 2>/dev/null || true; rm -f "$region"; cleanup' EXIT

# The communicator over the standby.
serve() {
    shmuring serve --region "$region" --rel-sizes 0 --slots 64 \
        --service "$service" 2>>"$WORK/serve.log" &
    serve=$!
    for _ in $(seq 1 300); do
        ! grep -q ' serving ' "$WORK/serve.log" || return 0
        kill -0 "$serve" 2>/dev/null || break
        sleep 0.1
    done
    fail "no communicator: $(cat "$WORK/serve.log")"
}
read_block() { # RELATION BLOCK [OPTION...]
    local rel=$1 block=$2
    shift 2
    shmuring read --region "$region" --rel "$rel" --block "$block" "$@"
}
# A command fails and says so.
says() { # WORDS COMMAND...
    local words=$1
    shift
    ! "$@" >"$WORK/said" 2>&1 || fail "$* succeeds"
    grep -q "$words" "$WORK/said" || fail "$* says '$(cat "$WORK/said")', not '$words'"
}
name_of() { # RELATION [DATABASE]: as the command takes it
    psql -h "$sockets" -p 5001 -U postgres -XAtq "${2:-postgres}" -c \
        "SELECT CASE reltablespace WHEN 1664 THEN '1664/0' ELSE '1663/' || d.oid END || '/' || pg_relation_filenode(c.oid)
         FROM pg_class c, pg_database d WHERE c.oid = '$1'::regclass AND datname = current_database()"
}
now_ms() {
    echo $(($(date +%s%N) / 1000000))
}
median() { # NUMBER...
    printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p"
}
make_pair <<'SQL'
CREATE TABLE old AS SELECT generate_series(1, 20000) n;
CREATE TABLE fresh AS SELECT 0 n;
SQL
serve
old=$(name_of old) fresh=$(name_of fresh)
! grep -q secret "$WORK/serve.log" || fail 'the password is in the log'

# Pages are those of the primary's file, once that is written.
ask 5001 'CHECKPOINT'
catch_up
read_block "$old" 0 --count 32 --out "$WORK/pages"
[ "$(stat -c %s "$WORK/pages")" -eq $((32 * 8192)) ] || fail 'not 32 pages'
file=$WORK/primary/$(ask 5001 "SELECT pg_relation_filepath('old')")
page_of() { # FILE BLOCK: its rows
    dd if="$1" bs=8192 skip="$2" count=1 status=none | tail -c 4000
}
for block in 0 13 31; do
    cmp <(page_of "$WORK/pages" $block) <(page_of "$file" $block) || fail "block $block is another"
done
blocks=$(ask 5001 "SELECT pg_relation_size('old') / 8192")
[ "$(shmuring relsize --region "$region" --rel "$old" --ask)" = "$blocks" ] || fail 'another size'
read_block "$(name_of pg_database)" 0 >/dev/null
read_block "$(name_of pg_class template1)" 0 >/dev/null
says 'past the end' read_block "$old" "$blocks"
says 'no such relation' read_block 1663/5/999999 0
says 'errno 95' read_block "$old" 0 --at 0/1000000
head -c 8192 /dev/zero >"$WORK/zero"
says 'read-only' shmuring write --region "$region" --rel "$old" --block 0 --in "$WORK/zero"

# A change is read as soon as it has been replayed, and old pages are not held up by it.
change() { # commits, and gives the LSN behind the change
    ask 5001 'UPDATE fresh SET n = n + 1'
    ask 5001 'SELECT pg_current_wal_flush_lsn()'
}
delay 20000
lsn=$(change)
read_block "$fresh" 0 --lsn "$lsn" --timeout 60000 >"$WORK/fresh" 2>&1 &
waiting=$!
for block in 1 2 3 4; do
    read_block "$old" $block >/dev/null
done
kill -0 $waiting 2>/dev/null || fail "old pages waited, or the fresh one did not: $lsn, $(cat "$WORK/fresh")"
delay 0
wait $waiting || fail 'the fresh page did not come'
delay 200
times_old=() times_fresh=()
for round in $(seq 1 5); do
    lsn=$(change)
    begin=$(now_ms)
    (read_block "$fresh" 0 --lsn "$lsn" --timeout 60000 >/dev/null && now_ms >"$WORK/done") &
    one=$(now_ms)
    read_block "$old" "$round" >/dev/null
    times_old+=($(($(now_ms) - one)))
    wait $!
    times_fresh+=($(($(cat "$WORK/done") - begin)))
done
echo "200 ms behind, a process for each read:" \
    "old pages $(median "${times_old[@]}") ms, fresh ones $(median "${times_fresh[@]}") ms"
delay 0
says 'no answer within 300 ms' read_block "$fresh" 0 --lsn FFFF/0 --timeout 300

# Stopped: a deadline is kept; then it goes on.
stopped=$(processes)
kill -STOP $stopped
says 'no answer within 500 ms' read_block "$old" 0 --timeout 500
kill -CONT $stopped
read_block "$old" 0 --timeout 60000 >/dev/null
# Killed, and started again while a read waits.
kill -9 $(processes) 2>/dev/null || true
until_true is_gone "$(postmaster_of standby)"
read_block "$old" 0 --timeout 60000 >"$WORK/again" 2>&1 &
waiting=$!
says 'no answer within 500 ms' read_block "$old" 1 --timeout 500
start standby 5002
wait $waiting || fail "a read did not outlive a restart: $(cat "$WORK/again")"
lsn=$(change)
read_block "$fresh" 0 --lsn "$lsn" --timeout 60000 >/dev/null
grep -q 'no connection to the standby' "$WORK/serve.log" || fail "no word of it: $(cat "$WORK/serve.log")"

# Away for good: an error that names it, and no hang.
stop standby
says 'errno' read_block "$old" 0 --timeout 120000
! grep -q 'no answer within' "$WORK/said" || fail 'it hangs'
start standby 5002
read_block "$old" 0 --timeout 60000 >/dev/null

# Promoted: its pages are of another history.
pg_ctl promote -D "$WORK/standby" -w -s
says 'errno 71' read_block "$old" 0 --timeout 60000
grep -q 'was promoted' "$WORK/serve.log" || fail "no word of it: $(cat "$WORK/serve.log")"
kill -TERM "$serve"
wait "$serve" || fail "the communicator did not drain: $(cat "$WORK/serve.log")"
serve=
says 'was promoted' shmuring serve --region "$region.2" --service "$service"
stop standby immediate
stop primary immediate
