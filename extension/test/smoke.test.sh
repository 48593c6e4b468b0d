# Every function and view once, beside what PostgreSQL itself says.
make_cluster a
start a 5001
ask 5001 'CREATE EXTENSION shmuring; CREATE EXTENSION pageinspect'
gives 5001 "$(shmuring --version | cut -d ' ' -f 2)" 'SELECT shmuring_version()'
ask 5001 "CREATE TABLE t AS SELECT i, repeat('x', 100) AS text FROM generate_series(1, 10000) i; CREATE INDEX ON t (i);
    VACUUM t; CHECKPOINT"
until_true is_served 5001

# Pages, as the server reads them. In its buffers they have no checksum.
ask 5001 "CREATE FUNCTION same(fork text, block bigint, relation text) RETURNS boolean BEGIN ATOMIC
    SELECT overlay(shmuring_read_page(relation::regclass, fork, block) PLACING '\\x0000' FROM 9 FOR 2)
        = overlay(get_raw_page(relation, fork, block) PLACING '\\x0000' FROM 9 FOR 2); END"
gives 5001 t "SELECT count(*) > 100 AND bool_and(same('main', b, 't')) FROM generate_series(0, pg_relation_size('t') / 8192 - 1) b"
gives 5001 t "SELECT same('main', 0, 't_i_idx') AND same('main', 3, 't_i_idx') AND same('fsm', 0, 't') AND same('vm', 0, 't')"
gives 5001 10000 "SELECT count(*) FROM generate_series(0, pg_relation_size('t') / 8192 - 1) b,
    heap_page_items(shmuring_read_page('t', 'main', b)) WHERE lp_flags = 1"
gives 5001 t "SELECT shmuring_rel_size('t', 'main') = pg_relation_size('t') / 8192"
gives 5001 100 "SELECT shmuring_prefetch('t', 'main', 3, 100)"
# It is asked for sizes anew each time: PostgreSQL changes them behind it.
ask 5001 "INSERT INTO t SELECT i, repeat('y', 100) FROM generate_series(1, 10000) i; CHECKPOINT"
gives 5001 t "SELECT shmuring_rel_size('t', 'main') = pg_relation_size('t') / 8192"

# Mistakes.
refuses 5001 22023 'past the end' "SELECT shmuring_read_page('t', 'main', 1000000)"
refuses 5001 22023 'out of range' "SELECT shmuring_read_page('t', 'main', -1)"
refuses 5001 22023 'invalid fork name' "SELECT shmuring_read_page('t', 'mane', 0)"
refuses 5001 58P01 'no such relation fork' "SELECT shmuring_read_page('t', 'init', 0)"
refuses 5001 0A000 'cannot do this' "SELECT shmuring_read_page('t', 'main', 0, '0/1')"
refuses 5001 42809 'does not have storage' "CREATE VIEW v AS SELECT 1; SELECT shmuring_read_page('v', 'main', 0)"
refuses 5001 0A000 'is temporary' "CREATE TEMP TABLE m (i int); SELECT shmuring_read_page('m', 'main', 0)"

# Who may.
ask 5001 "CREATE ROLE reader IN ROLE pg_read_all_data; CREATE ROLE monitor IN ROLE pg_monitor; CREATE ROLE nobody"
gives 5001 8192 "SET ROLE reader; SELECT length(shmuring_read_page('t', 'main', 0))"
refuses 5001 42501 'permission denied for function' "SET ROLE nobody; SELECT shmuring_read_page('t', 'main', 0)"
refuses 5001 42501 'permission denied for view' "SET ROLE nobody; SELECT * FROM shmuring_slots"
refuses 5001 42501 'permission denied for function' "SET ROLE monitor; SELECT shmuring_stat_reset()"
ask 5001 'ALTER TABLE t ENABLE ROW LEVEL SECURITY'
refuses 5001 42501 'row-level security' "SET ROLE reader; SELECT shmuring_read_page('t', 'main', 0)"
gives 5001 0 'SET ROLE monitor; SELECT count(*) FROM shmuring_slots'

# Counters, and their reset.
gives 5001 t "SET ROLE monitor; SELECT sum(value) FILTER (WHERE name = 'submitted') > 100
    AND sum(value) FILTER (WHERE name IN ('lost_hints', 'damage', 'bad_words', 'refused', 'dropped')) = 0
    FROM pg_stat_shmuring"
ask 5001 'SELECT shmuring_stat_reset()' >/dev/null
gives 5001 f "SELECT value > 10 FROM pg_stat_shmuring WHERE name = 'submitted'"
gives 5001 t 'SELECT stats_reset IS NOT NULL AND slots > 0 AND life = 1 FROM shmuring_communicator'
# The tool agrees on who serves.
said=$(shmuring stat --region "$(region_of a)")
[[ $said == *"pid $(ask 5001 'SELECT pid FROM shmuring_communicator'),"* ]] || fail "shmuring stat says $said"

# A page service is never asked for WAL that ends within a record: it would wait for a rest that nobody flushes. What is
# flushed in the background ends where a page does, which here lies within a record, since each is of about a page.
ask 5001 'CREATE TABLE wide (bytes bytea); ALTER TABLE wide ALTER bytes SET STORAGE PLAIN'
ask 5001 "DO \$\$ DECLARE inserted pg_lsn;
    BEGIN
        FOR attempt IN 1..10 LOOP
            INSERT INTO wide SELECT string_agg(sha512(i::text::bytea), '') FROM generate_series(1, 500) i GROUP BY i % 5;
            FOR i IN 1..300 LOOP
                PERFORM pg_sleep(0.01);
                CONTINUE WHEN pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0') % 8192 <> 0;
                inserted := pg_current_wal_insert_lsn();
                PERFORM shmuring_rel_size('t', 'main');
                -- Behind the head of the next page, at most.
                IF pg_current_wal_flush_lsn() < inserted - 40 THEN RAISE 'asked for the half of a record'; END IF;
                RETURN;
            END LOOP;
        END LOOP;
        RAISE 'nothing was flushed in the background';
    END \$\$"

# Names of settings.
refuses 5001 42602 'invalid configuration parameter name' "SET shmuring.nothing = 1"

watcher=$(watchers_of a) communicator=$(communicators_of a)
stop a
until_true is_gone "$watcher"
until_true is_gone "$communicator"
