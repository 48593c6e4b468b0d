# Reads straight into shared buffers, with a communicator inside: whoever gives one up is held until no byte can come any
# more. Functions of the tests ask for them (pool.c): on a stock server nothing else does.
make_cluster a 'shmuring.communicator = inside' 'shmuring.slots_per_backend = 64'
service=$(grep '^shmuring.page_service' "$WORK/a/postgresql.conf")
sed -i '/^shmuring.page_service/d' "$WORK/a/postgresql.conf"
start a 5001
ask 5001 "CREATE EXTENSION shmuring; CREATE EXTENSION pageinspect;
    CREATE TABLE t AS SELECT i FROM generate_series(1, 20000) i;
    CREATE FUNCTION test_read(scratch regclass, relation regclass, first bigint, blocks int) RETURNS bytea
        AS 'shmuring', 'shmuring_test_read_sql' LANGUAGE C STRICT;
    CREATE FUNCTION test_serve(go text) RETURNS text AS 'shmuring', 'shmuring_test_serve_sql' LANGUAGE C STRICT"
for i in 0 1 2 3 4; do
    ask 5001 "CREATE UNLOGGED TABLE scratch$i AS SELECT repeat('x', 1000) FROM generate_series(1, 300)"
done
# What is dirty could be written out while something else is in the buffer.
ask 5001 CHECKPOINT
scratches="SELECT md5(string_agg(get_raw_page('scratch' || s, b), '' ORDER BY s, b))
    FROM generate_series(1, 4) s, generate_series(0, 31) b"
before=$(ask 5001 "$scratches")

# 1. The communicator is a session of ours, which copies to the buffers once there is a file `go`.
serve() {
    rm -f "$WORK/go"
    ask 5001 "SELECT test_serve('$WORK/go')" >"$WORK/served" &
    server=$!
    until_true is_served 5001
}
# A session that reads, until its pages are being copied.
read_blocks() { # SCRATCH SETTING
    : >"$WORK/said"
    psql -h "$sockets" -p 5001 -U postgres -XAtq -v VERBOSITY=verbose -c "$2" -c "SELECT 'pid', pg_backend_pid()" \
        -c "SELECT test_read('$1', 't', 0, 32) = decode(repeat('a5', 32 * 8192), 'hex')" >>"$WORK/said" 2>&1 &
    session=$!
    until_true grep -q '^pid|' "$WORK/said"
    backend=$(sed -n 's/^pid|//p' "$WORK/said")
    until_true eval "[ \"\$(ask 5001 'SELECT state FROM shmuring_slots WHERE pid = $backend')\" = copying ]"
}
times_held() {
    grep -c 'waiting for the communicator to let go of shared buffers' "$WORK/a.log" || true
}
is_held() { # MORE THAN
    [ "$(times_held)" -gt "$1" ]
}
serve
read_blocks scratch1 'SET statement_timeout = 0'
touch "$WORK/go"
wait "$session" || fail "the read failed: $(cat "$WORK/said")"
grep -qx t "$WORK/said" || fail "other pages came: $(cat "$WORK/said")"
wait "$server"
# Given up while they are copied: it is held, so that what comes meanwhile comes to buffers that still are the reader's.
# A session that is terminated has nobody to put back what was in them: so it has others.
for way in pg_cancel_backend/57014 pg_terminate_backend/57P01 timeout/08000; do
    serve
    held=$(times_held)
    case $way in
        timeout/*) read_blocks scratch1 'SET shmuring.timeout = 1000' ;;
        pg_cancel_backend/*) read_blocks scratch1 'SET statement_timeout = 0' ;;
        *) read_blocks scratch0 'SET statement_timeout = 0' ;;
    esac
    [ "$way" = timeout/08000 ] || ask 5001 "SELECT ${way%/*}($backend)" >/dev/null
    until_true is_held "$held"
    gives 5001 active "SELECT state FROM pg_stat_activity WHERE pid = $backend"
    gives 5001 copying "SELECT state FROM shmuring_slots WHERE pid = $backend"
    touch "$WORK/go"
    wait "$session" && fail "$way does no harm" || true
    grep -q "${way#*/}" "$WORK/said" || fail "$way: $(cat "$WORK/said")"
    wait "$server"
    [ "$(cat "$WORK/served")" = completed ] || fail "$way: the communicator says $(cat "$WORK/served")"
    gives 5001 0 'SELECT count(*) FROM shmuring_slots'
    gives 5001 "$before" "$scratches"
done
stop a

# 2. The worker: the same pages as by bounce buffers, and storms of reads that are given up.
echo "$service" >>"$WORK/a/postgresql.conf"
start a 5001
until_true is_served 5001
wanted=$(ask 5001 "SELECT md5(string_agg(shmuring_read_page('t', 'main', b), '' ORDER BY b)) FROM generate_series(0, 31) b")
# Read from files, they have checksums.
before=$(ask 5001 "$scratches")
gives 5001 "$wanted" "SELECT md5(test_read('scratch1', 't', 0, 32))"
sessions=()
for i in 1 2 3 4; do
    {
        for n in $(seq 300); do
            echo "SET statement_timeout = $((n % 4));"
            echo "SELECT md5(test_read('scratch$i', 't', 0, 32));"
        done
    } | psql -h "$sockets" -p 5001 -U postgres -XAtq >"$WORK/pages$i" 2>"$WORK/errors$i" &
    sessions+=($!)
done
for i in 1 2 3 4; do
    wait "${sessions[i - 1]}" || fail "session $i: $(tail -n 3 "$WORK/errors$i")"
    [ "$(sort -u "$WORK/pages$i")" = "$wanted" ] || fail "session $i read $(sort -u "$WORK/pages$i")"
    # The first of each four is not timed.
    [ "$(wc -l <"$WORK/pages$i")" -ge 75 ] || fail "session $i: $(tail -n 3 "$WORK/errors$i")"
    ! grep 'ERROR' "$WORK/errors$i" | grep -v 'canceling statement due to' || fail "session $i"
done
echo "$(cat "$WORK"/errors[1-4] | grep -c ERROR) of 1200 reads were given up"
gives 5001 "$before" "$scratches"
until_true eval "[ \"\$(ask 5001 'SELECT count(*) FROM shmuring_slots')\" = 0 ]"
stop a
