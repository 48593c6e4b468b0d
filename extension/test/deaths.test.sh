# Deaths: of communicators under sessions that read, of a watcher, of a backend, of the postmaster. With a log collector,
# which outlives the restart after a backend's death and has inherited what the postmaster had open.
. "$1/sessions.sh"
make_readable
first_watcher=$(watchers_of a)

# 1. Communicators die with requests in flight: stopped until all eight wait, and killed like that.
begin_reading
for kill in 1 2 3; do
    until_true is_served 5001
    communicator=$(ask 5001 'SELECT pid FROM shmuring_communicator')
    kill -STOP "$communicator"
    until_true waiting_are 8
    before=$(finished)
    began=$(date +%s%N)
    kill -KILL "$communicator"
    until_true is_served_anew 5001 "$communicator"
    echo "take-over $kill seen after $((($(date +%s%N) - began) / 1000000)) ms"
    until_true have_finished $((before + 100))
done
# The watcher too; its communicator serves on.
communicator=$(ask 5001 'SELECT pid FROM shmuring_communicator')
kill -KILL "$first_watcher"
until_true is_gone "$first_watcher"
until_true have_finished $(($(finished) + 100))
gives 5001 "$communicator" 'SELECT pid FROM shmuring_communicator'
ask 5001 'INSERT INTO stop DEFAULT VALUES'
for i in "${!sessions[@]}"; do
    wait "${sessions[i]}" || fail "session $i: $(cat "$WORK/reader$i")"
    grep -q 'read [1-9]' "$WORK/reader$i" || fail "session $i: $(cat "$WORK/reader$i")"
done
gives 5001 0 "SELECT sum(value) FROM pg_stat_shmuring WHERE name IN ('lost_hints', 'damage', 'bad_words', 'refused', 'dropped')"

# 2. A backend dies with its request in flight: one postmaster, a second life.
ask 5001 'TRUNCATE stop; CHECKPOINT'
kill -STOP "$communicator"
begin_reading
until_true waiting_are 8
victim=$(ask 5001 "SELECT min(pid) FROM shmuring_slots WHERE is_waited_for AND state <> 'completed'")
kill -KILL "$victim"
for i in "${!sessions[@]}"; do
    wait "${sessions[i]}" && fail "session $i outlives a crash" || true
done
until_true ask 5001 'SELECT 1'
left=$(grep -c 'completing leftover I/O of slot [0-9]* generation [0-9]*: get_page of [0-9]*/[0-9]*/[0-9]* main block [0-9]*: ' "$log") || true
[ "$left" -ge 8 ] || fail "$left leftovers were logged"
gives 5001 2 'SELECT life FROM shmuring_communicator'
# The watcher was missed, and a new one has replaced the communicator that the old one had left.
[ -n "$(watchers_of a)" ] || fail 'nobody watches'
until_true is_served_anew 5001 "$communicator"
gives 5001 0 "SELECT count(*) FROM pages WHERE md5 <> md5(shmuring_read_page('t', 'main', b))"
until_true eval "[ \"\$(ask 5001 'SELECT count(*) FROM shmuring_slots')\" = 0 ]"

# A third: now the watcher and the communicator stay as they are.
watcher=$(watchers_of a) communicator=$(ask 5001 'SELECT pid FROM shmuring_communicator')
begin_reading
until_true have_finished $(($(finished) + 100))
victim=$(ask 5001 "SELECT min(pid) FROM pg_stat_activity WHERE query LIKE 'DO%'")
kill -KILL "$victim"
for i in "${!sessions[@]}"; do wait "${sessions[i]}" && fail "session $i outlives a crash" || true; done
until_true ask 5001 'SELECT 1'
gives 5001 "3|$communicator" 'SELECT life, pid FROM shmuring_communicator'
[ "$(watchers_of a)" = "$watcher" ] || fail 'another one watches'
gives 5001 0 "SELECT count(*) FROM pages WHERE md5 <> md5(shmuring_read_page('t', 'main', b))"

# 3. The postmaster dies: when its last process has gone, so do watcher and communicator; the next server goes on.
postmaster=$(postmaster_of a)
kill -KILL "$postmaster"
for pid in $postmaster $watcher $communicator; do until_true is_gone "$pid"; done
start a 5001
until_true is_served 5001
gives 5001 4 'SELECT life FROM shmuring_communicator'
gives 5001 0 "SELECT count(*) FROM pages WHERE md5 <> md5(shmuring_read_page('t', 'main', b))"
stop a immediate
start a 5001
until_true is_served 5001
gives 5001 0 "SELECT count(*) FROM pages WHERE md5 <> md5(shmuring_read_page('t', 'main', b))"
stop a
