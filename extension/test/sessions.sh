# Functions of the tests with sessions that read by the ring, in the server of port 5001: the table `t` is what they read.

# A server of such a table, whose pages are told in `pages`. Its log is $log, by a log collector.
make_readable() { # LINE...
    make_cluster a 'logging_collector = on' "log_filename = 'server.log'" 'max_connections = 40' "$@"
    log=$WORK/a/log/server.log
    start a 5001
    ask 5001 'CREATE EXTENSION shmuring;
        CREATE TABLE t AS SELECT i FROM generate_series(1, 20000) i; CREATE TABLE stop ()'
    ask 5001 'CHECKPOINT'
    until_true is_served 5001
    ask 5001 "CREATE TABLE pages AS SELECT b, md5(shmuring_read_page('t', 'main', b)) FROM generate_series(0, 63) b"
}

read_page="SELECT length(shmuring_read_page('t', 'main', 0))"

# A session that waits, whose process is $backend; what it said is in $WORK/said, what became of it is its status.
waits() { # SETTING
    : >"$WORK/said"
    psql -h "$sockets" -p 5001 -U postgres -XAtq -v VERBOSITY=verbose -c "$1" -c "SELECT 'pid', pg_backend_pid()" \
        -c "$read_page" >>"$WORK/said" 2>&1 &
    session=$!
    until_true grep -q '^pid|' "$WORK/said"
    backend=$(sed -n 's/^pid|//p' "$WORK/said")
    until_true is_waiting
}
is_waiting() {
    [ "$(ask 5001 "SELECT count(*) FROM pg_stat_activity JOIN shmuring_slots s USING (pid)
        WHERE pid = $backend AND wait_event_type = 'Extension' AND operation = 'get_page' AND s.state <> 'withdrawn'
        AND is_waited_for AND block = 0 AND relfilenode = (SELECT pg_relation_filenode('t')) AND age IS NOT NULL")" = 1 ]
}
# us from the call of a function in the server until the session is not active any more, as the server sees it.
ends_after() { # FUNCTION
    ask 5001 "DO \$\$ DECLARE began timestamptz := clock_timestamp();
        BEGIN
            PERFORM $1($backend);
            LOOP
                PERFORM pg_stat_clear_snapshot();
                EXIT WHEN NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $backend AND state = 'active');
                IF clock_timestamp() > began + interval '30 s' THEN RAISE 'it still waits'; END IF;
                PERFORM pg_sleep(0.001);
            END LOOP;
            RAISE NOTICE 'took % us', round(extract(epoch FROM clock_timestamp() - began) * 1e6);
        END \$\$" 2>&1 | sed -n 's/^.*took \([0-9]*\) us$/\1/p'
}
# The best of some tries: on busy machines others run first, which is none of our time.
ends_at_once() { # FUNCTION SQLSTATE WHILE
    local i took best=1000000000
    for ((i = 0; i < 5; i++)); do
        waits 'SET statement_timeout = 0'
        took=$(ends_after "$1")
        [ -n "$took" ] || fail "$1 does not end the wait"
        [ "$took" -ge "$best" ] || best=$took
        wait "$session" && fail "$1 does no harm" || true
        grep -q "$2" "$WORK/said" || fail "$1: $(cat "$WORK/said")"
    done
    is_at_once "$1" "$3" "$best"
}
# The same for statement_timeout: by how much it is late, as the session sees it. A try whose time is up before it waits
# says nothing.
times_out_at_once() { # WHILE
    local i late best=1000000000
    for ((i = 0; i < 5; i++)); do
        late=$(ask 5001 "DO 'BEGIN END'; SET statement_timeout = 300;
            DO \$\$ BEGIN
                PERFORM shmuring_read_page('t', 'main', 0);
                RAISE 'it was answered';
            EXCEPTION WHEN query_canceled THEN
                RAISE NOTICE 'late by % us',
                    round(extract(epoch FROM clock_timestamp() - statement_timestamp()) * 1e6) - 300000;
            END \$\$" 2>&1) || [[ $late == *'due to statement timeout'* ]] || fail "statement_timeout while $1: $late"
        late=$(sed -n 's/^.*late by \([0-9]*\) us$/\1/p' <<<"$late")
        [ "${late:-$best}" -ge "$best" ] || best=$late
    done
    is_at_once statement_timeout "$1" "$best"
}
is_at_once() { # WHAT WHILE US
    echo "$1 while $2: $3 us"
    [ "$3" -lt 50000 ] || fail "$1 took $3 us at best"
}

# Sessions that read and compare until there is a line in `stop`; each tells how much it read.
reads="DO \$\$ DECLARE n bigint := 0; wrong bigint;
    BEGIN
        WHILE NOT EXISTS (SELECT FROM stop) LOOP
            SELECT count(*) INTO wrong FROM pages WHERE md5 <> md5(shmuring_read_page('t', 'main', b));
            IF wrong > 0 THEN RAISE 'wrong pages: %', wrong; END IF;
            n := n + 64;
        END LOOP;
        RAISE NOTICE 'read % pages', n;
    END \$\$"
begin_reading() {
    local i
    sessions=()
    for ((i = 0; i < 8; i++)); do
        psql -h "$sockets" -p 5001 -U postgres -XAtq -v ON_ERROR_STOP=1 -c "$reads" >"$WORK/reader$i" 2>&1 &
        sessions+=($!)
    done
}
waiting_are() { # AT LEAST
    [ "$(ask 5001 "SELECT count(*) >= $1 FROM shmuring_slots WHERE is_waited_for AND state <> 'completed'")" = t ]
}
finished() {
    ask 5001 "SELECT value FROM pg_stat_shmuring WHERE part = 'backends' AND name = 'finished'"
}
have_finished() { # MORE THAN
    [ "$(finished)" -gt "$1" ]
}
