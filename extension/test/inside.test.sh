# The communicator inside the server: a background worker over PostgreSQL's shared memory. It dies in every way there is,
# with sessions that read; so do backends, servers and postmasters. With a log collector, as in deaths.test.sh.
. "$1/sessions.sh"
make_readable 'shmuring.communicator = inside' 'shmuring.slots_per_backend = 64'

worker() {
    ask 5001 'SELECT pid FROM shmuring_communicator WHERE is_serving'
}
all_is_well() {
    until_true ask 5001 'SELECT 1'
    until_true is_served 5001
    gives 5001 0 "SELECT count(*) FROM pages WHERE md5 <> md5(shmuring_read_page('t', 'main', b))"
    until_true eval "[ \"\$(ask 5001 'SELECT count(*) FROM shmuring_slots')\" = 0 ]"
    gives 5001 0 "SELECT sum(value) FROM pg_stat_shmuring WHERE name IN ('lost_hints', 'damage', 'bad_words', 'refused')"
}
all_have_gone() { # PID...
    local pid
    for pid in "$@"; do until_true is_gone "$pid"; done
}
no_session_outlives_it() {
    local i
    for i in "${!sessions[@]}"; do wait "${sessions[i]}" && fail "session $i outlives it" || true; done
}

# A child of the postmaster, and nothing beside the server.
[ "$(ps -o ppid= -o args= -p "$(worker)" | xargs)" = "$(postmaster_of a) postgres: shmuring communicator" ] ||
    fail "the worker is $(ps -o ppid= -o args= -p "$(worker)")"
[ -z "$(watchers_of a)$(communicators_of a)" ] || fail 'somebody is beside the server'
[ ! -e "$(region_of a)" ] || fail 'there is a file with the region'
gives 5001 "$WORK/a/shmuring.lock" 'SELECT region FROM shmuring_communicator'
gives 5001 t "SELECT shmuring_rel_size('t', 'main') = pg_relation_size('t') / 8192"
gives 5001 64 "SELECT shmuring_prefetch('t', 'main', 0, 64)"
grep -q 'LOG:  .*: serving' "$log" || fail "the worker's words are not in the server's log"
all_is_well

# 1. It is stopped: whoever waits for pages can be cancelled at once all the same, and nothing else waits for it.
worker=$(worker)
kill -STOP "$worker"
ends_at_once pg_cancel_backend 57014 'the worker is stopped'
ends_at_once pg_terminate_backend 57P01 'the worker is stopped'
times_out_at_once 'the worker is stopped'
refuses 5001 57014 'statement timeout' "SET statement_timeout = 20; $read_page"
refuses 5001 08000 'not answered in time' "SET shmuring.timeout = 20; $read_page"
for statement in 'CREATE DATABASE other' 'DROP DATABASE other' CHECKPOINT; do
    psql -h "$sockets" -p 5001 -U postgres -XAtq -c "SET statement_timeout = '60 s'" -c "$statement" || fail "$statement"
done
kill -CONT "$worker"
gives 5001 8192 "$read_page"
all_is_well

# 2. It is told to end, with requests in flight: another one goes on, and no session notices.
begin_reading
for round in 1 2 3; do
    until_true is_served 5001
    worker=$(worker)
    kill -STOP "$worker"
    until_true waiting_are 8
    kill -TERM "$worker"
    before=$(finished)
    began=$(date +%s%N)
    kill -CONT "$worker"
    until_true is_served_anew 5001 "$worker"
    echo "worker $((round + 1)) seen after $((($(date +%s%N) - began) / 1000000)) ms"
    until_true have_finished $((before + 100))
done
ask 5001 'INSERT INTO stop DEFAULT VALUES'
for i in "${!sessions[@]}"; do
    wait "${sessions[i]}" || fail "session $i: $(cat "$WORK/reader$i")"
    grep -q 'read [1-9]' "$WORK/reader$i" || fail "session $i: $(cat "$WORK/reader$i")"
done
gives 5001 4 'SELECT epoch FROM shmuring_communicator'
grep -q 'terminating any other active server processes' "$log" && fail 'the server was restarted'
ask 5001 'TRUNCATE stop; CHECKPOINT'
all_is_well

# 3. A backend is killed: new shared memory in the same postmaster, twice. And the worker: the same.
for victim in backend backend worker worker; do
    postmaster=$(postmaster_of a)
    worker=$(worker)
    begin_reading
    until_true have_finished $(($(finished) + 100))
    case $victim in
        backend) kill -KILL "$(ask 5001 "SELECT min(pid) FROM pg_stat_activity WHERE query LIKE 'DO%'")" ;;
        worker) kill -KILL "$worker" ;;
    esac
    no_session_outlives_it
    until_true is_gone "$worker"
    all_is_well
    [ "$(postmaster_of a)" = "$postmaster" ] || fail 'it is another postmaster'
    gives 5001 1 'SELECT life FROM shmuring_communicator'
    [ "$(children_of "$postmaster" | xargs -n 1 ps -o args= -p | grep -c 'shmuring communicator')" = 1 ] ||
        fail 'there is not one worker'
done
[ "$(grep -c 'all server processes terminated; reinitializing' "$log")" = 4 ] || fail 'the server was not restarted 4 times'

# 4. The server ends under its readers, and nothing is left of it.
for mode in fast immediate; do
    begin_reading
    until_true have_finished $(($(finished) + 100))
    processes=$(postmaster=$(postmaster_of a) && children_of "$postmaster")
    stop a "$mode"
    no_session_outlives_it
    all_have_gone $processes
    start a 5001
    all_is_well
done
# Its postmaster alone.
begin_reading
until_true have_finished $(($(finished) + 100))
postmaster=$(postmaster_of a)
processes=$(children_of "$postmaster")
kill -KILL "$postmaster"
all_have_gone "$postmaster" $processes
no_session_outlives_it
start a 5001
all_is_well

# 5. Another cluster on the host, by its side.
make_cluster b 'shmuring.communicator = inside'
start b 5002
ask 5002 'CREATE EXTENSION shmuring; CREATE TABLE t AS SELECT generate_series(1, 1000) i'
ask 5002 'CHECKPOINT'
until_true is_served 5002
gives 5002 8192 "SELECT length(shmuring_read_page('t', 'main', 0))"
# Without its lock file no worker can begin: that is said, and none is started all the time.
worker=$(ask 5002 'SELECT pid FROM shmuring_communicator')
rm "$WORK/b/shmuring.lock"
kill -TERM "$worker"
has_failed() { # TIMES
    [ "$(grep -c 'could not start the communicator: ' "$WORK/b.log")" -ge "$1" ]
}
until_true has_failed 2
# By the log's own times, in seconds: 5 s are waited.
mapfile -t failed < <(sed -nE 's/^(.{19}).* could not start the communicator: .*/\1/p' "$WORK/b.log")
[ $(($(date -d "${failed[1]}" +%s) - $(date -d "${failed[0]}" +%s))) -ge 3 ] || fail 'workers are started all the time'
stop b
all_is_well

# 6. A page service that is not there: the server is, and says so.
sed -i "s|^shmuring.page_service = .*|shmuring.page_service = 'datadir:/nowhere'|" "$WORK/b/postgresql.conf"
start b 5002
until_true grep -q 'could not start the communicator: .*/nowhere' "$WORK/b.log"
refuses 5002 08006 'no communicator answered' "SET shmuring.timeout = 20; SELECT shmuring_read_page('t', 'main', 0)"
stop b
stop a

# 7. A page server that is stopped: waits end when they are told to, a worker that ends leaves its reads to the next, which
# finishes them as soon as the page server goes on, and a server ends without it.
id=0123456789abcdef0123456789abcdef
shmuring page-server --listen 127.0.0.1:0 --store "$WORK/pages" --tenant $id --timeline $id \
    >"$WORK/address" 2>"$WORK/page-server.log" &
page_server=$!
trap '[ -z "$page_server" ] || kill -KILL "$page_server"; cleanup' EXIT
until_true grep -q : "$WORK/address"
service="grpc:http://$(cat "$WORK/address")?tenant=$id&timeline=$id"
make_cluster c 'shmuring.communicator = inside' "shmuring.page_service = '$service'"
start c 5001
ask 5001 'CREATE EXTENSION shmuring; CREATE TABLE t AS SELECT generate_series(1, 1000) i'
relation=$(ask 5001 "SELECT '1663/' || oid || '/' || pg_relation_filenode('t') FROM pg_database
    WHERE datname = current_database()")
shmuring serve --region "$WORK/fill" --service "$service" >"$WORK/fill.log" 2>&1 &
fill=$!
until_true grep -q serving "$WORK/fill.log"
head -c 8192 /dev/urandom >"$WORK/page"
# Up to an LSN that no read of this server names: it has not to wait.
shmuring write --region "$WORK/fill" --rel "$relation" --block 0 --create --extend --in "$WORK/page" \
    --lsn 1/0
kill -TERM "$fill"
wait "$fill" || fail "the page server was not filled: $(cat "$WORK/fill.log")"

# Before anything is read: the worker keeps pages that it has read.
until_true is_served 5001
kill -STOP "$page_server"
ends_at_once pg_cancel_backend 57014 'the page server is stopped'
ends_at_once pg_terminate_backend 57P01 'the page server is stopped'
times_out_at_once 'the page server is stopped'
refuses 5001 57014 'statement timeout' "SET statement_timeout = 20; $read_page"
waits 'SET statement_timeout = 0'
worker=$(worker)
kill -TERM "$worker"
until_true is_gone "$worker"
grep -q 'stopped claimed=[0-9]* unanswered=1' "$WORK/c.log" || fail 'the worker left nothing'
until_true is_waiting
kill -CONT "$page_server"
wait "$session" || fail "the read was not finished: $(cat "$WORK/said")"
grep -qx 8192 "$WORK/said" || fail "the read gave $(cat "$WORK/said")"
gives 5001 "$(md5sum "$WORK/page" | cut -d ' ' -f 1)" "SELECT md5(shmuring_read_page('t', 'main', 0))"

# Behind what is kept: since the page has changed.
ask 5001 "UPDATE t SET i = 0 WHERE ctid = '(0,1)'"
kill -STOP "$page_server"
waits 'SET statement_timeout = 0'
processes=$(children_of "$(postmaster_of c)")
stop c
wait "$session" && fail 'the session outlives its server' || true
all_have_gone $processes
kill -KILL "$page_server"
wait "$page_server" 2>/dev/null || true
page_server=
