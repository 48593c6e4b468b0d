# Two clusters on one host, one region for two, another number of connections, and a communicator of somebody else's.
make_cluster a
make_cluster b
start a 5001
start b 5002
for port in 5001 5002; do
    ask $port 'CREATE EXTENSION shmuring; CREATE TABLE t AS SELECT generate_series(1, 1000) i'
    ask $port 'CHECKPOINT'
    until_true is_served $port
    gives $port 8192 "SELECT length(shmuring_read_page('t', 'main', 0))"
done
[ "$(ask 5001 'SELECT region FROM shmuring_communicator')" != "$(ask 5002 'SELECT region FROM shmuring_communicator')" ]

# The region of a server that lives is refused, and nothing happens to that server.
communicator=$(communicators_of a)
stop b
sed -i "s|^shmuring.region = .*|shmuring.region = '$(region_of a)'|" "$WORK/b/postgresql.conf"
if pg_ctl start -D "$WORK/b" -l "$WORK/b.log" -o '-p 5002' -w -s 2>"$WORK/said"; then fail 'two servers on one region'; fi
grep -q "FATAL:  could not begin to use region \"$(region_of a)\": .*server" "$WORK/b.log" || fail 'b was not refused by name'
gives 5001 "$communicator" 'SELECT pid FROM shmuring_communicator'
gives 5001 8192 "SELECT length(shmuring_read_page('t', 'main', 0))"

# With another number of connections the region has other sizes.
stop a
echo 'max_connections = 60' >>"$WORK/a/postgresql.conf"
start a 5001
until_true is_served 5001
gives 5001 8192 "SELECT length(shmuring_read_page('t', 'main', 0))"
grep -q "removed region \"$(region_of a)\"" "$WORK/a.log" || fail 'the region was not made anew'
stop a
until_true is_gone "$communicator"

# A communicator of somebody else's: there first, or later.
echo "shmuring.communicator = external" >>"$WORK/a/postgresql.conf"
serve() {
    shmuring serve --region "$(region_of a)" --service "datadir:$WORK/a" 2>>"$WORK/serve.log" &
    communicator=$!
    until_true grep -q "serving.* pid=$communicator" "$WORK/serve.log"
}
until_true eval '[ -z "$(communicators_of a)" ]'
serve
start a 5001
gives 5001 "t|$communicator" 'SELECT is_serving, pid FROM shmuring_communicator'
gives 5001 8192 "SELECT length(shmuring_read_page('t', 'main', 0))"
stop a
[ -z "$(watchers_of a)" ] || fail 'somebody watches'
kill -TERM "$communicator"
wait "$communicator" || fail 'the communicator did not end clean'
start a 5001
refuses 5001 08006 'no communicator answered' "SET shmuring.timeout = 20; SELECT shmuring_read_page('t', 'main', 0)"
serve
gives 5001 8192 "SELECT length(shmuring_read_page('t', 'main', 0))"
stop a

# Whoever holds slots of an earlier life keeps the server waiting, which says so and can be stopped.
kill -STOP "$communicator"
shmuring read --region "$(region_of a)" --rel 1663/5/16384 --block 0 --timeout 600000 >"$WORK/said" 2>&1 &
tool=$!
until_true eval '[[ $(shmuring stat --region "$(region_of a)") == *"submitted 1"* ]]'
pg_ctl start -D "$WORK/a" -l "$WORK/a.log" -o '-p 5001' -W -s
until_true grep -q "waiting for requests of earlier servers in region \"$(region_of a)\"" "$WORK/a.log"
postmaster=$(postmaster_of a)
kill -INT "$postmaster"
until_true is_gone "$postmaster"
grep -q 'the start was cancelled' "$WORK/a.log" || fail 'the start was not cancelled'
kill -KILL "$tool"
wait "$tool" || true
start a 5001
grep -q 'completing leftover I/O of slot .*: get_page of 1663/5/16384 main block 0: withdrawn' "$WORK/a.log" ||
    fail 'the leftover of the tool was not logged'
kill -CONT "$communicator"
gives 5001 8192 "SELECT length(shmuring_read_page('t', 'main', 0))"

# It cannot be made to serve a region of other sizes.
stop a
echo 'max_connections = 50' >>"$WORK/a/postgresql.conf"
if pg_ctl start -D "$WORK/a" -l "$WORK/a.log" -o '-p 5001' -w -s 2>"$WORK/said"; then fail 'a region of other sizes'; fi
grep -q 'was made for other settings' "$WORK/a.log" || fail 'a was not refused by name'
kill -TERM "$communicator"
wait "$communicator" || fail 'the communicator did not end clean'

# A program that is not there is told by name.
make_cluster c "shmuring.communicator_path = '/nowhere/shmuring'"
if pg_ctl start -D "$WORK/c" -l "$WORK/c.log" -o '-p 5003' -w -s 2>"$WORK/said"; then fail 'no program'; fi
grep -q 'could not start the communicator with "/nowhere/shmuring": No such file' "$WORK/c.log" || fail 'not told by name'

# Nor is a region that another user has made, whoever may open it: ci/postgres.sh makes one if it can.
if [ -e "$SCRATCH/foreign.region" ]; then
    make_cluster d "shmuring.region = '$SCRATCH/foreign.region'"
    if pg_ctl start -D "$WORK/d" -l "$WORK/d.log" -o '-p 5004' -w -s 2>"$WORK/said"; then fail "another user's region"; fi
    grep -q 'could not begin to use region .*/foreign.region": it belongs to another user' "$WORK/d.log" ||
        fail 'd was not refused by name'
    [ -e "$SCRATCH/foreign.region" ] || fail 'the region was removed'
fi
