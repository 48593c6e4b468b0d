# Cancel, terminate and statement_timeout end a wait at once, also while the communicator is stopped; the view shows what
# a session waits for; and then everything goes on.
. "$1/sessions.sh"
make_cluster a 'shmuring.slots_per_backend = 64'
start a 5001
ask 5001 'CREATE EXTENSION shmuring; CREATE TABLE t AS SELECT generate_series(1, 10000) i'
ask 5001 'CHECKPOINT'
until_true is_served 5001
communicator=$(communicators_of a)
kill -STOP "$communicator"
ends_at_once pg_cancel_backend 57014 'the communicator is stopped'
ends_at_once pg_terminate_backend 57P01 'the communicator is stopped'

# statement_timeout, and our own.
times_out_at_once 'the communicator is stopped'
refuses 5001 57014 'statement timeout' "SET statement_timeout = 20; $read_page"
refuses 5001 08000 'not answered in time' "SET shmuring.timeout = 20; $read_page"
# A prefetch does not wait for anything but room.
gives 5001 32 "SET shmuring.timeout = 0; SELECT shmuring_prefetch('t', 'main', 0, 32)"

# Sessions that are cancelled more often than they have slots are told so.
too_many=$(for _ in $(seq 70); do echo "$read_page;"; done)
psql -h "$sockets" -p 5001 -U postgres -XAtq <<<"SET shmuring.timeout = 2; $too_many" >"$WORK/said" 2>&1
grep -q 'no request slot came back in time' "$WORK/said" || fail "$(cat "$WORK/said")"

# Everything comes back, and the sessions' slots with it.
kill -CONT "$communicator"
gives 5001 8192 "$read_page"
until_true eval "[ \"\$(ask 5001 'SELECT count(*) FROM shmuring_slots')\" = 0 ]"
[ "$(communicators_of a)" = "$communicator" ] || fail 'the communicator is another one'

# Nobody serves: said so, by name.
kill -STOP "$(watchers_of a)"
kill -KILL "$communicator"
until_true eval "[ \"\$(ask 5001 'SELECT is_serving FROM shmuring_communicator')\" = f ]"
refuses 5001 08006 'no communicator answered' "SET shmuring.timeout = 20; $read_page"
kill -CONT "$(watchers_of a)"
gives 5001 8192 "$read_page"
stop a
