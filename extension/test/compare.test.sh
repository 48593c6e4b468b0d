# `shmuring compare`: nothing on a healthy pair, whatever goes on there; and each kind of damage to the standby's files.
. "$1/pair.sh"

pair() { # OPTION...: compares, as JSON; its exit code is in $code.
    code=0
    local at="host=$sockets user=postgres dbname=postgres"
    shmuring compare --primary "$at port=5001" --standby "$at port=5002" --json --quiet "$@" \
        >"$WORK/report" 2>"$WORK/said" || code=$?
}
# The report has no difference, and so many pages at least.
is_healthy() { # PAGES OPTION...
    local least=$1 pages
    shift
    pair "$@"
    pages=$(number pages_compared)
    [ "$code" -eq 0 ] && [ "$(number differences)" -eq 0 ] || fail "exit code $code: $(cat "$WORK/report" "$WORK/said")"
    [ "$pages" -ge "$least" ] || fail "only $pages pages were compared"
}
# The report has exactly these differences: relation:fork:block:kind.
is_found() { # DIFFERENCE...
    pair
    local got wanted
    local block='"block":([0-9]+)' fork='"fork":"([a-z]+)"' kind='"kind":"([a-z_]+)"' name='"relation":"public\.([a-z_]+)"'
    got=$(grep -o '{"block":[^}]*}' "$WORK/report" | sed -E "s/.*$block.*$fork.*$kind.*$name.*/\\4:\\2:\\1:\\3/" | sort)
    wanted=$(printf '%s\n' "$@" | sort)
    [ "$code" -eq 7 ] && [ "$got" = "$wanted" ] || fail "exit code $code, found $got, not $wanted: $(cat "$WORK/said")"
}
number() { # NAME
    grep -oE "\"$1\":[0-9]+" "$WORK/report" | head -n 1 | cut -d : -f 2
}
file_of() { # RELATION [FORK]
    echo "$WORK/standby/$(ask 5001 "SELECT pg_relation_filepath('$1')")${2:+_$2}"
}

make_pair <<'SQL'
CREATE TABLE things (id serial PRIMARY KEY, words text[], spot point, name text, long text);
CREATE INDEX things_gin ON things USING gin (words);
CREATE INDEX things_gist ON things USING gist (spot);
CREATE INDEX things_spgist ON things USING spgist (name);
CREATE INDEX things_hash ON things USING hash (name);
CREATE INDEX things_brin ON things USING brin (id);
CREATE UNLOGGED TABLE fleeting AS SELECT generate_series(1, 5000) AS n;
CREATE FUNCTION add_things(n int) RETURNS void LANGUAGE sql AS $$
    INSERT INTO things (words, spot, name, long)
    SELECT array['w' || i % 100, 'v' || i % 7], point(random() * 100, random() * 100), md5(random()::text),
        repeat(md5(i::text), 200)
    FROM generate_series(1, n) i
$$;
SELECT add_things(2000);
CREATE DATABASE other;
SQL
pgbench -h "$sockets" -p 5001 -U postgres -i -q -s 2 postgres >/dev/null 2>&1

# In use: everything is changed, dropped, truncated and vacuumed meanwhile.
cat >"$WORK/mixed.sql" <<'SQL'
SELECT add_things(20);
UPDATE things SET words = words || 'w1'::text, spot = point(random() * 100, 5) WHERE id % 97 = (random() * 96)::int;
DELETE FROM things WHERE id % 89 = (random() * 88)::int;
VACUUM things;
CREATE TABLE brief AS SELECT generate_series(1, 3000) n;
DROP TABLE brief;
SQL
pgbench -h "$sockets" -p 5001 -U postgres -n -c 2 -T 8 postgres >"$WORK/pgbench" 2>&1 &
pgbench -h "$sockets" -p 5001 -U postgres -n -c 1 -T 8 -f "$WORK/mixed.sql" postgres >"$WORK/mixed" 2>&1 &
for _ in 1 2 3; do
    is_healthy 3000
done
is_healthy 500 --database other --rate 20000
wait
grep -q 'processed' "$WORK/pgbench" && grep -q 'processed' "$WORK/mixed" || fail "$(cat "$WORK/pgbench" "$WORK/mixed")"
settle
is_healthy 5000
[ "$(number unlogged)" -eq 1 ] || fail "$(cat "$WORK/report")"
echo "compared $(number pages_compared) pages, $(number pages_per_second) pages a second"

# Damage to files while the standby is down. Block 5 is an old version: its last write was lost.
accounts=$(file_of pgbench_accounts)
get "$accounts" 5 >"$WORK/old"
ask 5001 "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE ctid >= '(5,1)' AND ctid < '(6,1)'"
settle
stop standby
cp "$accounts" "$WORK/right"
flip "$accounts" $((3 * 8192 + 8192 - 50))
put "$accounts" 5 <"$WORK/old"
get "$WORK/right" 7 | put "$accounts" 8
get "$WORK/right" 8 | put "$accounts" 7
put "$accounts" 10 </dev/zero
# LSNs that no WAL has come to, here and there.
stop primary
flip "$accounts" $((12 * 8192 + 3))
flip "${accounts/standby/primary}" $((14 * 8192 + 3))
start primary 5001
flip "$(file_of pgbench_accounts_pkey)" $((2 * 8192 + 8192 - 30))
flip "$(file_of pgbench_accounts vm)" 40
flip "$(file_of pgbench_accounts fsm)" 100
start standby 5002
swapped() { # BLOCK OTHER: a page that is newer than it may be, or older, or as new
    local a b
    a=$(get "$WORK/right" "$1" | od -An -tx4 -N8 -v) b=$(get "$WORK/right" "$2" | od -An -tx4 -N8 -v)
    if [[ $a > $b ]]; then echo old; elif [[ $a < $b ]]; then echo old_on_primary; else echo bytes; fi
}
is_found pgbench_accounts:main:3:bytes pgbench_accounts:main:5:old pgbench_accounts:main:10:zeroed \
    pgbench_accounts:main:7:"$(swapped 7 8)" pgbench_accounts:main:8:"$(swapped 8 7)" \
    pgbench_accounts:main:12:damaged pgbench_accounts:main:14:damaged_on_primary \
    pgbench_accounts_pkey:main:2:bytes pgbench_accounts:vm:0:bytes
grep -q '"offset":8142' "$WORK/report" || fail "the flipped byte is elsewhere: $(cat "$WORK/report")"

# Put right, but for a file that is cut off.
stop standby
stop primary
flip "${accounts/standby/primary}" $((14 * 8192 + 3))
start primary 5001
cp "$WORK/right" "$accounts"
index=$(file_of pgbench_accounts_pkey)
flip "$index" $((2 * 8192 + 8192 - 30))
flip "$(file_of pgbench_accounts vm)" 40
cp "$index" "$WORK/index"
last=$(($(stat -c %s "$index") / 8192 - 1))
truncate -s $((last * 8192)) "$index"
start standby 5002
is_found pgbench_accounts_pkey:main:$last:missing

# With checksums the standby cannot even read such a page, and says so; its other pages are compared.
stop standby
cp "$WORK/index" "$index"
pg_checksums --enable --no-sync -D "$WORK/standby" >/dev/null 2>&1
flip "$accounts" $((3 * 8192 + 8192 - 50))
start standby 5002
is_found pgbench_accounts:main:3:damaged

# A standby that is not there, or does not replay, is named, and so is one that was promoted. One that is started anew
# while it is compared with is waited for.
stop standby
pair
[ "$code" -eq 1 ] && grep -q 'port=5002' "$WORK/said" || fail "exit code $code: $(cat "$WORK/said")"
cp "$WORK/right" "$accounts"
pg_checksums --disable --no-sync -D "$WORK/standby" >/dev/null 2>&1
start standby 5002
is_healthy 5000 --rate 2500 &
compared=$!
until_true is_true 5002 "SELECT count(*) >= 2 FROM pg_stat_activity WHERE application_name = 'shmuring'"
for _ in 1 2; do
    stop standby
    start standby 5002
done
wait "$compared" || fail 'a standby that was started anew'
ask 5002 'SELECT pg_wal_replay_pause()' >/dev/null
ask 5001 'UPDATE pgbench_branches SET bbalance = bbalance + 1'
pair --patience 1
[ "$code" -eq 1 ] && grep -q 'replay stands still' "$WORK/report" || fail "exit code $code: $(cat "$WORK/report")"
ask 5002 'SELECT pg_wal_replay_resume()' >/dev/null
pg_ctl promote -D "$WORK/standby" -w -s
pair
[ "$code" -eq 1 ] && grep -q 'was promoted' "$WORK/said" || fail "exit code $code: $(cat "$WORK/said")"

# Raw pages are for those who may read the server's files.
ask 5001 'CREATE ROLE nobody LOGIN'
if psql -h "$sockets" -p 5001 -U nobody -XAtq -v ON_ERROR_STOP=1 postgres 2>"$WORK/said" \
    <<<"SELECT shmuring_source_sizes('{1663}', '{5}', '{1259}', '{0}')"; then
    fail 'anybody may read pages'
fi
grep -q 'permission denied' "$WORK/said" || fail "$(cat "$WORK/said")"
stop standby immediate
stop primary immediate
