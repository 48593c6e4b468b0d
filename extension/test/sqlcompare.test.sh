# shmuring_compare(): a primary's pages against its standby's, which the communicator serves, and the other way about:
# nothing on a healthy pair, and each kind of damage to files.
. "$1/pair.sh"

compare() { # PORT ARGUMENTS: blocks, kinds and offsets, in a line
    ask "$1" "SELECT string_agg(concat_ws(':', block, difference, first_offset), ' ' ORDER BY block)
        FROM shmuring_compare($2)" 2>"$WORK/said"
}
finds() { # PORT WANTED ARGUMENTS
    local got
    got=$(compare "$1" "$3") || fail "$3: $(cat "$WORK/said")"
    [ "$got" = "$2" ] || fail "shmuring_compare($3) finds '$got', not '$2': $(cat "$WORK/said")"
}
file_of() { # CLUSTER RELATION [FORK]
    echo "$WORK/$1/$(ask 5001 "SELECT pg_relation_filepath('$2')")${3:+_$3}"
}

make_pair <<'SQL'
CREATE TABLE t AS SELECT i, repeat('x', 500) AS text FROM generate_series(1, 2000) i;
CREATE INDEX t_i ON t (i);
CREATE INDEX t_hash ON t USING hash (i);
CREATE INDEX t_brin ON t USING brin (i);
CREATE TABLE words AS SELECT array[i, i % 7] AS w, point(i, i) AS p, md5(i::text) AS m FROM generate_series(1, 3000) i;
CREATE INDEX words_gin ON words USING gin (w);
CREATE INDEX words_gist ON words USING gist (p);
CREATE INDEX words_spgist ON words USING spgist (m);
CREATE SEQUENCE s;
CREATE UNLOGGED TABLE fleeting (i int);
CREATE TABLE empty (i int);
VACUUM (FREEZE) t;
SQL
pgbench -h "$sockets" -p 5001 -U postgres -i -q -s 1 postgres >/dev/null 2>&1
preload primary 5001 "standby:host=$sockets port=5002 user=postgres dbname=postgres"

relations="t t_i t_hash t_brin words words_gin words_gist words_spgist s empty pg_class pg_proc pg_proc_oid_index
    pgbench_accounts pgbench_accounts_pkey pgbench_tellers pgbench_branches pgbench_history"
ask 5001 "SELECT nextval('s'), nextval('s')" >/dev/null
for relation in $relations; do
    finds 5001 '' "'$relation'"
done
finds 5001 '' "'t', 'vm'"
refuses 5001 0A000 'free space maps' "SELECT * FROM shmuring_compare('t', 'fsm')"
refuses 5001 0A000 'not logged' "SELECT * FROM shmuring_compare('fleeting')"
refuses 5001 22023 'out of range' "SELECT * FROM shmuring_compare('t', 'main', -1)"
refuses 5001 22023 'rate' "SELECT * FROM shmuring_compare('t', rate => -1)"

# In use: rows change, tables grow, maps are cleared and set.
cat >"$WORK/mixed.sql" <<'SQL'
UPDATE t SET i = i + 1 WHERE i % 97 = (random() * 96)::int;
INSERT INTO words SELECT array[i], point(i, 5), md5(random()::text) FROM generate_series(1, 50) i;
SELECT nextval('s');
VACUUM t;
SQL
pgbench -h "$sockets" -p 5001 -U postgres -n -c 2 -T 8 postgres >"$WORK/pgbench" 2>&1 &
busy=$!
pgbench -h "$sockets" -p 5001 -U postgres -n -c 1 -T 8 -f "$WORK/mixed.sql" postgres >"$WORK/mixed" 2>&1 &
mixed=$!
rounds=0
while kill -0 "$busy" 2>/dev/null; do
    for relation in $relations; do
        finds 5001 '' "'$relation'"
    done
    finds 5001 '' "'t', 'vm'"
    rounds=$((rounds + 1))
done
wait "$busy" "$mixed" || fail "$(cat "$WORK/pgbench" "$WORK/mixed")"
begin=$(($(date +%s%N) / 1000000))
finds 5001 '' "'pgbench_accounts'"
pages=$(ask 5001 "SELECT pg_relation_size('pgbench_accounts') / 8192")
echo "$rounds rounds in use; $pages pages in $(($(date +%s%N) / 1000000 - begin)) ms"

# It keeps its rate, and ends when it is told to: while it is ahead of its rate, and while the standby is stopped.
begin=$(date +%s%N)
finds 5001 '' "'t', 'main', 0, 19, 20"
[ $(($(date +%s%N) - begin)) -gt 900000000 ] || fail '20 blocks a second took less than 0.9 s'
slow='SET statement_timeout = 200; SELECT count(*) FROM shmuring_compare'
refuses 5001 57014 'statement timeout' "$slow('t', rate => 1)"
stopped=$(processes)
kill -STOP $stopped
refuses 5001 57014 'statement timeout' "$slow('t')"
psql -h "$sockets" -p 5001 -U postgres -XAtq -v VERBOSITY=verbose -v ON_ERROR_STOP=1 \
    -c "SELECT count(*) AS of_t FROM shmuring_compare('t')" >"$WORK/cancelled" 2>&1 &
waiting=$!
until_true is_true 5001 "SELECT count(pg_cancel_backend(pid)) = 1 FROM pg_stat_activity
    WHERE query LIKE '%of_t FROM shmuring_compare%' AND pid <> pg_backend_pid() AND wait_event_type = 'Extension'"
! wait $waiting && grep -q ' 57014: ' "$WORK/cancelled" || fail "it was not cancelled: $(cat "$WORK/cancelled")"
kill -CONT $stopped
finds 5001 '' "'t'"

# Damage to the standby's files while it is down. Block 5 is an old version: its last write was lost. Blocks 7 and 8 have
# each other's place, 10 is zeroed.
settle
file=$(file_of standby t) index=$(file_of standby t_i) map=$(file_of standby t vm)
get "$file" 5 >"$WORK/old"
ask 5001 "UPDATE t SET text = repeat('y', 500) WHERE ctid >= '(5,1)' AND ctid < '(6,1)'"
settle
stop standby
cp "$file" "$WORK/right" && cp "$index" "$WORK/index" && cp "$map" "$WORK/map"
damage() { # DIRECTORY'S FILE
    flip "$1" $((3 * 8192 + 8192 - 50))
    put "$1" 5 <"$WORK/old"
    get "$WORK/right" 7 | put "$1" 8
    get "$WORK/right" 8 | put "$1" 7
    put "$1" 10 </dev/zero
}
lsn_of() { # BLOCK: of the right page, as hexadecimal digits that sort
    od -An -tx4 -N8 -v <(get "$WORK/right" "$1") | tr -d ' '
}
swapped() { # BLOCK OTHER OLDER NEWER: what the copy with the other's page in its place is called
    local mine other
    mine=$(lsn_of "$1") other=$(lsn_of "$2")
    if [[ $other < $mine ]]; then echo "$3"; elif [[ $other > $mine ]]; then echo "$4"; else echo bytes; fi
}
kinds() { # PORT ARGUMENTS: without offsets
    compare "$1" "$2" | sed -E 's/:[0-9]+( |$)/\1/g'
}
damage "$file"
flip "$index" $((2 * 8192 + 8192 - 30))
flip "$map" 40
start standby 5002
wanted="3:bytes 5:old 7:$(swapped 7 8 old old_local) 8:$(swapped 8 7 old old_local) 10:zeroed"
got=$(kinds 5001 "'t'") || fail "$(cat "$WORK/said")"
[ "$got" = "$wanted" ] || fail "found $got, not $wanted"
finds 5001 '3:bytes:8142' "'t', 'main', 3, 3"
finds 5001 '2:bytes:8162' "'t_i'"
finds 5001 '0:bytes:40' "'t', 'vm'"
gives 5001 't' "SELECT bool_and(local_lsn > remote_lsn) FROM shmuring_compare('t', 'main', 5, 5)"
gives 5001 't' "SELECT bool_and(local_lsn = remote_lsn) FROM shmuring_compare('t', 'main', 3, 3)"
finds 5001 '' "'words'"

# A file that is cut off, one that is too long, and, with checksums, a page that cannot even be read.
stop standby
last=$(($(stat -c %s "$WORK/index") / 8192 - 1))
cp "$WORK/right" "$file" && cp "$WORK/map" "$map" && cp "$WORK/index" "$index"
truncate -s $((last * 8192)) "$index"
get "$WORK/right" 9 >>"$(file_of standby empty)"
pg_checksums --enable --no-sync -D "$WORK/standby" >/dev/null 2>&1
flip "$file" $((3 * 8192 + 8192 - 50))
start standby 5002
finds 5001 "$last:missing" "'t_i'"
finds 5001 '0:extra' "'empty'"
finds 5001 '3:damaged' "'t'"

# On the standby, which has what it has replayed, against the primary's files: the same damage, now here.
stop standby
cp "$WORK/right" "$file" && cp "$WORK/index" "$index"
truncate -s 0 "$(file_of standby empty)"
pg_checksums --disable --no-sync -D "$WORK/standby" >/dev/null 2>&1
start standby 5002
settle
preload standby 5002 "datadir:$WORK/primary"
for relation in t t_i s pg_class; do
    finds 5002 '' "'$relation'"
done
stop standby
damage "$file"
start standby 5002
until_true is_served 5002
wanted="3:bytes 5:old_local 7:$(swapped 7 8 old_local old) 8:$(swapped 8 7 old_local old) 10:zeroed_local"
got=$(kinds 5002 "'t'") || fail "$(cat "$WORK/said")"
[ "$got" = "$wanted" ] || fail "found $got, not $wanted"
stop standby immediate
stop primary immediate
