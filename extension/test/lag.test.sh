# Pages by SQL from a standby that lags: old ones are as fast as ever, fresh ones wait, and it can be seen that they do.
. "$1/pair.sh"

make_pair <<'SQL'
CREATE TABLE old AS SELECT generate_series(1, 50000) n;
CREATE TABLE fresh AS SELECT 0 n;
CREATE FUNCTION took(relation regclass, block bigint) RETURNS float8 LANGUAGE plpgsql AS $$
DECLARE
    since timestamptz := clock_timestamp();
BEGIN
    PERFORM shmuring_read_page(relation, 'main', block);
    RETURN extract(epoch FROM clock_timestamp() - since) * 1000;
END
$$;
SQL
preload primary 5001 "standby:host=$sockets port=5002 user=postgres dbname=postgres"

# A page is behind the commit before it, which the standby replays late.
change() {
    ask 5001 'UPDATE fresh SET n = n + 1'
    ask 5001 'UPDATE fresh SET n = n + 1'
}
waits() { # A read of the fresh page does.
    is_true 5001 "SELECT count(*) = 1 FROM shmuring_in_flight f JOIN pg_stat_activity a USING (pid)
        JOIN shmuring_shards s USING (shard) WHERE relfilenode = pg_relation_filenode('fresh')
        AND operation = 'get_page' AND waits_for = 'wal' AND is_waited_for AND wait_event_type = 'Extension'
        AND f.lsn > '$replayed' AND f.lsn - ingested = behind AND lag >= behind AND waiting = 1"
}

# So late that only a read that does not wait comes back.
ask 5001 "SELECT took('old', 0)" >/dev/null
delay 600000
change
replayed=$(ask 5002 'SELECT pg_last_wal_replay_lsn()')
ask 5001 "SELECT took('fresh', 0)" >"$WORK/fresh" 2>&1 &
waiting=$!
until_true waits
ask 5001 "SELECT count(took('old', b)) FROM generate_series(0, 99) b" >/dev/null
prefetch old 0 200
kill -0 $waiting 2>/dev/null || fail "the fresh page did not wait: $(cat "$WORK/fresh")"
until_true waits
refuses 5001 08000 'all changes up to LSN' "SET shmuring.timeout = 100; SELECT took('fresh', 0)"
delay 0
wait $waiting || fail "the fresh page did not come: $(cat "$WORK/fresh")"
until_true is_true 5001 "SELECT lag = 0 AND waiting = 0 AND watermark <= ingested AND age > interval '0'
    FROM shmuring_shards"

# What is not older than its file: a database that is copied as files, made behind a commit that is late.
delay 2000
change
ask 5001 'CREATE DATABASE copy TEMPLATE template0 STRATEGY file_copy'
psql -h "$sockets" -p 5001 -U postgres -XAtq -v ON_ERROR_STOP=1 copy >"$WORK/copied" 2>&1 \
    -c 'CREATE EXTENSION shmuring' -c "SELECT length(shmuring_read_page('pg_ts_dict', 'main', 0))" ||
    fail "$(cat "$WORK/copied")"
grep -qx 8192 "$WORK/copied" || fail "$(cat "$WORK/copied")"

# Figures: in one session, right behind a commit, an old page and then the fresh one.
reads() { # DELAY: medians of both, ms
    delay "$1"
    local round
    for round in $(seq 1 15); do
        ask 5001 "DO 'BEGIN PERFORM took(''old'', 0); END';
            UPDATE fresh SET n = n + 1; UPDATE fresh SET n = n + 1;
            SELECT took('old', $round), took('fresh', (ctid::text::point)[0]::bigint) FROM fresh"
    done >"$WORK/reads"
    for column in 1 2; do
        cut -d '|' -f $column "$WORK/reads" | sort -g | sed -n 8p
    done
}
mapfile -t near < <(reads 0)
mapfile -t behind < <(reads 200)
echo "reads by SQL, old and fresh pages: ${near[*]} ms; of a standby that is 200 ms behind ${behind[*]} ms"
is_true 5001 "SELECT ${behind[0]} < ${behind[1]}" || fail 'old pages wait as fresh ones do'
stop standby immediate
stop primary immediate
