# Each party is killed under pgbench, while sessions read pages by the ring from a standby: the communicator beside, its
# watcher, a backend, a backend of the standby, the standby, the postmaster. Afterwards all go on; what was read is right;
# nothing is left in a slot, and no page differs.
. "$1/pair.sh"

# What begins to read or write anew ends with this test.
trap 'touch "$WORK/enough"; cleanup' EXIT
make_pair 'wal_retrieve_retry_interval = 100' <<'SQL'
CREATE TABLE t AS SELECT i FROM generate_series(1, 20000) i;
VACUUM (FREEZE) t;
SQL
pgbench -h "$sockets" -p 5001 -U postgres -i -q -s 1 postgres >/dev/null 2>&1
preload primary 5001 "standby:host=$sockets port=5002 user=postgres dbname=postgres" \
    "shmuring.debug_compare_local = 'all'"
ask 5001 "CREATE TABLE pages AS SELECT b, md5(shmuring_read_page('t', 'main', b)) FROM generate_series(0, 63) b"
# Pages that stay as they are, and one that pgbench changes, which the server compares with its own. A page service that is
# away for longer than the communicator tries is asked again.
ask 5001 "CREATE FUNCTION check_pages() RETURNS int LANGUAGE plpgsql AS \$\$
DECLARE
    first int := random() * 56;
    wrong int;
BEGIN
    LOOP
        BEGIN
            SELECT count(*) INTO wrong FROM pages
                WHERE b BETWEEN first AND first + 7 AND md5 <> md5(shmuring_read_page('t', 'main', b));
            PERFORM shmuring_read_page('pgbench_accounts', 'main', (random() * 1600)::int);
            EXIT;
        EXCEPTION WHEN io_error THEN
            RAISE NOTICE 'away: %', SQLERRM;
        END;
    END LOOP;
    IF wrong > 0 THEN RAISE 'wrong pages: %', wrong; END IF;
    RETURN 1;
END \$\$"
echo 'SELECT check_pages();' >"$WORK/read.sql"

# Sessions that work until it is enough. Those that are cut begin anew.
readers=4 writers=2
keep_at_it() { # NAME OPTION...
    local name=$1
    shift
    while [ ! -e "$WORK/enough" ] && kill -0 $$ 2>/dev/null; do
        pgbench -h "$sockets" -p 5001 -U postgres -n -t 100 "$@" postgres >>"$WORK/$name" 2>&1 || sleep 0.1
    done
}
begin_load() {
    rm -f "$WORK/enough" "$WORK/reads" "$WORK/writes"
    keep_at_it reads -c $readers -f "$WORK/read.sql" &
    load=($!)
    keep_at_it writes -c $writers &
    load+=($!)
}
end_load() {
    touch "$WORK/enough"
    wait "${load[@]}"
}
done_so_far="SELECT (SELECT value FROM pg_stat_shmuring WHERE part = 'backends' AND name = 'finished') AS read,
    (SELECT value FROM pg_stat_shmuring WHERE part = 'debug_compare_local' AND name = 'compared') AS compared,
    (SELECT count(*) FROM pgbench_history) AS written"
has_begun() {
    begun=$(ask 5001 "$done_so_far")
}
# Both have done more since `begun`.
goes_on() {
    local read compared written
    IFS='|' read -r read compared written <<<"$begun"
    is_true 5001 "SELECT read > $read + 100 AND compared > $compared AND written > $written + 10 FROM ($done_so_far) d"
}
both_go_on() {
    until_true has_begun
    until_true goes_on
}
# The function kills. `goes on`: no session may be cut; `is cut`: all sessions are; `is away`: the page service is.
round() { # FUNCTION, goes on|is cut|is away
    local relation
    begin_load
    both_go_on
    "$1"
    both_go_on
    end_load
    ! grep -h 'ERROR:' "$WORK/reads" "$WORK/writes" || fail "$1"
    case $2 in
        'is cut') grep -q 'aborted' "$WORK/reads" || fail "$1: no session was cut" ;;
        *) ! grep -h 'aborted' "$WORK/reads" "$WORK/writes" || fail "$1: sessions were cut" ;;
    esac
    [ "$2" = 'is away' ] || ! grep -h 'away:' "$WORK/reads" || fail "$1: reads failed"
    ! grep 'differs from the one here' "$WORK/primary.log" || fail "$1: pages differ"
    until_true is_true 5001 'SELECT count(*) = 0 FROM shmuring_slots'
    for relation in t pages pgbench_accounts pgbench_accounts_pkey pgbench_history pgbench_tellers pgbench_branches; do
        gives 5001 '' "SELECT c FROM shmuring_compare('$relation') c"
    done
    gives 5001 0 "SELECT sum(value) FROM pg_stat_shmuring WHERE name IN ('damage', 'bad_words')"
    echo "$1 killed: $(grep -c 'client [0-9]* aborted' "$WORK/reads" || true) of $readers sessions that read were cut"
}

serving() {
    ask 5001 'SELECT pid FROM shmuring_communicator WHERE is_serving'
}
communicator() {
    local pid
    pid=$(serving)
    kill -KILL "$pid"
    until_true is_served_anew 5001 "$pid"
}
watcher() {
    local pid watcher
    pid=$(serving)
    watcher=$(watchers_of primary)
    kill -KILL "$watcher"
    until_true is_gone "$watcher"
    [ "$(serving)" = "$pid" ] || fail 'the communicator is another one'
}
# A session whose request is in flight.
kill_reader() {
    kill -KILL "$(ask 5001 "SELECT min(pid) FROM shmuring_slots WHERE operation = 'get_page' AND is_waited_for")"
}
has_life() { # NUMBER
    is_true 5001 "SELECT life = $1 FROM shmuring_communicator"
}
backend() {
    local life
    life=$(ask 5001 'SELECT life FROM shmuring_communicator')
    until_true kill_reader
    until_true has_life $((life + 1))
    # The watcher that was killed has a successor.
    [ -n "$(watchers_of primary)" ] || fail 'nobody watches'
    until_true is_served 5001
}
crashes_of() { # CLUSTER
    grep -c 'all server processes terminated; reinitializing' "$WORK/$1.log" || true
}
has_crashed() { # CLUSTER, MORE THAN
    [ "$(crashes_of "$1")" -gt "$2" ]
}
kill_source() {
    kill -KILL "$(ask 5002 "SELECT min(pid) FROM pg_stat_activity WHERE application_name = 'shmuring'")"
}
standby_backend() {
    local crashes
    crashes=$(crashes_of standby)
    until_true kill_source
    until_true has_crashed standby "$crashes"
    until_true ask 5002 'SELECT 1'
}
all_wait() {
    is_true 5001 "SELECT count(*) = $readers FROM shmuring_in_flight WHERE is_waited_for AND waits_for = 'page service'"
}
standby() {
    local postmaster
    postmaster=$(postmaster_of standby)
    kill -KILL $(processes)
    until_true is_gone "$postmaster"
    until_true all_wait
    start standby 5002
}
postmaster() {
    local pid pids
    pid=$(postmaster_of primary)
    pids="$(children_of "$pid") $(watchers_of primary) $(communicators_of primary)"
    kill -KILL "$pid"
    for pid in $pid $pids; do until_true is_gone "$pid"; done
    start primary 5001
    until_true is_served 5001
}

round communicator 'goes on'
round watcher 'goes on'
round backend 'is cut'
round standby_backend 'is away'
round standby 'is away'
round postmaster 'is cut'
stop primary
stop standby
