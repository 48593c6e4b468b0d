# A server whose pages are those of its hot standby: whichever of the two starts first; while the standby is stopped, when
# what ends a wait does so at once; and when it is away.
. "$1/pair.sh"
. "$1/sessions.sh"

make_pair <<'SQL'
CREATE TABLE t AS SELECT generate_series(1, 10000) i;
SQL
settle
# Under the mask that hides hint bits.
healthy="SELECT count(*) FROM shmuring_compare('t')"

# The standby first.
preload primary 5001 "standby:host=$sockets port=5002 user=postgres dbname=postgres" 'shmuring.slots_per_backend = 64'
gives 5001 8192 "$read_page"
gives 5001 0 "$healthy"

# Its server is stopped.
stopped=$(processes)
kill -STOP $stopped
ends_at_once pg_cancel_backend 57014 'the standby is stopped'
ends_at_once pg_terminate_backend 57P01 'the standby is stopped'
times_out_at_once 'the standby is stopped'
refuses 5001 57014 'statement timeout' "SET statement_timeout = 20; $read_page"
refuses 5001 08000 'not answered in time' "SET shmuring.timeout = 20; $read_page"
refuses 5001 57014 'statement timeout' "SET statement_timeout = 20; SELECT shmuring_rel_size('t', 'main')"
kill -CONT $stopped
gives 5001 8192 "$read_page"
gives 5001 0 "$healthy"
until_true is_true 5001 'SELECT count(*) = 0 FROM shmuring_slots'

# It is away: that is said, and is not taken for a relation that is not there. What waits for its WAL goes on waiting.
stop standby
refuses 5001 58030 'Connection refused' "$read_page"
refuses 5001 08000 'not answered in time' "SET shmuring.timeout = 100; SELECT shmuring_rel_size('t', 'main')"
start standby 5002
gives 5001 0 "$healthy"

# The server first, and its standby when somebody waits already.
stop standby
stop primary
start primary 5001
ask 5001 "SET shmuring.timeout = 0; $read_page" >"$WORK/said" 2>&1 &
session=$!
until_true is_true 5001 "SELECT count(*) = 1 FROM shmuring_in_flight f JOIN pg_stat_activity a USING (pid)
    WHERE relfilenode = pg_relation_filenode('t') AND operation = 'get_page' AND is_waited_for
    AND waits_for = 'no communicator' AND wait_event_type = 'Extension'"
start standby 5002
wait "$session" || fail "it was not read: $(cat "$WORK/said")"
[ "$(cat "$WORK/said")" = 8192 ] || fail "read $(cat "$WORK/said")"
gives 5001 0 "$healthy"
stop primary
stop standby
