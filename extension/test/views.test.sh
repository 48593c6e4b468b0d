# What a session waits for, told without the communicator's help: while it is stopped, and after its death.
make_cluster a
start a 5001
ask 5001 'CREATE EXTENSION shmuring; CREATE TABLE t AS SELECT 1 i; CHECKPOINT'
until_true is_served 5001

# Files lag behind no WAL.
gives 5001 '0||||0|0|' 'SELECT shard, watermark, ingested, NULL, lag, waiting, age FROM shmuring_shards'
gives 5001 0 'SELECT count(*) FROM shmuring_in_flight'

waits_for() { # WHAT
    [ "$(ask 5001 "SELECT waits_for || ' ' || behind FROM shmuring_in_flight f JOIN pg_stat_activity a USING (pid)
        WHERE relfilenode = pg_relation_filenode('t') AND operation = 'get_page' AND block = 0 AND shard = 0
        AND is_waited_for AND wait_event_type = 'Extension' AND age > interval '0'")" = "$1 0" ]
}
kill -STOP $(communicators_of a)
ask 5001 "SELECT length(shmuring_read_page('t', 'main', 0))" >"$WORK/read" 2>&1 &
reader=$!
until_true waits_for communicator
# A dead one is told from one that is stopped. The watcher goes first, so that there is no other.
kill -9 $(watchers_of a)
kill -9 $(communicators_of a)
until_true waits_for 'no communicator'
kill -0 "$reader" || fail "nobody answered: $(cat "$WORK/read")"
# Its successor finishes what it left, and tells of shards in its own name.
shmuring serve --region "$(region_of a)" --service "datadir:$WORK/a" >>"$WORK/a/shmuring.log" 2>&1 &
serve=$!
wait "$reader" || fail "$(cat "$WORK/read")"
[ "$(cat "$WORK/read")" = 8192 ] || fail "$(cat "$WORK/read")"
gives 5001 0 'SELECT count(*) FROM shmuring_in_flight'
gives 5001 1 'SELECT count(*) FROM shmuring_shards'
kill -TERM "$serve"
wait "$serve" || fail 'the communicator did not drain'
stop a
