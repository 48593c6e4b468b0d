-- The surface of the extension, on a server that has it in shared_preload_libraries and serves its own files:
-- shmuring.page_service = 'datadir:DATA_DIRECTORY'.
CREATE EXTENSION shmuring;
CREATE EXTENSION pageinspect;

CREATE TABLE t AS SELECT i, 'row ' || i AS text FROM generate_series(1, 1000) i;
CREATE INDEX t_i ON t (i);
CREATE TABLE empty (i int);
VACUUM (FREEZE) t;
CHECKPOINT;

-- Pages.
SELECT length(shmuring_read_page('t', 'main', 0)), length(shmuring_read_page('t', 'vm', 0)),
	length(shmuring_read_page('t', 'fsm', 0));
SELECT pagesize, version, special FROM page_header(shmuring_read_page('t', 'main', 0));
SELECT count(*) FROM generate_series(0, shmuring_rel_size('t', 'main') - 1) b,
	heap_page_items(shmuring_read_page('t', 'main', b)) WHERE lp_flags = 1;
SELECT shmuring_rel_size('t', 'main') = pg_relation_size('t') / current_setting('block_size')::int AS is_right;
SELECT shmuring_rel_size('empty', 'main');
SELECT shmuring_prefetch('t', 'main', 0, 5), shmuring_prefetch('t', 'main', 3, 0);
SELECT shmuring_last_written_lsn('t', 'main', 0) <= pg_current_wal_lsn() AS is_past;

-- While a transaction reads pages of a relation, nobody cuts blocks off it.
BEGIN;
SELECT length(shmuring_read_page('t', 'main', 0));
SELECT mode FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 't'::regclass;
COMMIT;

-- Its own files are the same; what was not written there yet is not.
SELECT * FROM shmuring_compare('t');
SELECT * FROM shmuring_compare('t', 'vm');
SELECT * FROM shmuring_compare('empty', rate => 1);
UPDATE t SET text = 'changed' WHERE i = 1;
SELECT block, difference, local_lsn > remote_lsn AS is_newer_here, first_offset > 0 AS has_offset
	FROM shmuring_compare('t', 'main', 0, 0);
CHECKPOINT;
SELECT * FROM shmuring_compare('t', first_block => 0, last_block => 4294967294);

-- Mistakes.
SELECT shmuring_read_page('t', 'main', -1);
SELECT shmuring_read_page('t', 'main', 4294967295);
SELECT shmuring_read_page('t', 'mane', 0);
\set VERBOSITY sqlstate
SELECT shmuring_read_page('empty', 'main', 0);
SELECT shmuring_read_page('t', 'init', 0);
SELECT shmuring_read_page('t', 'main', 0, '0/1');
SELECT shmuring_prefetch('t', 'main', 0, -1);
SELECT shmuring_prefetch('t', 'main', 1, 9223372036854775807);
\set VERBOSITY default
SELECT * FROM shmuring_compare('t', 'fsm');
SELECT * FROM shmuring_compare('t', first_block => -1);
SELECT * FROM shmuring_compare('t', rate => -1);
CREATE UNLOGGED TABLE fleeting (i int);
SELECT * FROM shmuring_compare('fleeting');
DROP TABLE fleeting;
SELECT shmuring_read_page('pg_tables', 'main', 0);
SET shmuring.nothing = 1;
SET shmuring.slots_per_backend = 1;
SET shmuring.timeout = -1;

-- Nothing given, nothing asked.
SELECT shmuring_read_page(NULL, 'main', 0) IS NULL AS is_null;

-- Rights.
CREATE ROLE regress_shmuring_reader IN ROLE pg_read_all_data;
CREATE ROLE regress_shmuring_monitor IN ROLE pg_monitor;
SET ROLE regress_shmuring_reader;
SELECT length(shmuring_read_page('t', 'main', 0));
SELECT * FROM shmuring_compare('t');
SELECT count(*) FROM shmuring_slots;
SELECT count(*) FROM shmuring_in_flight;
SELECT count(*) FROM shmuring_shards;
SET shmuring.debug_compare_local = 'all';
SET ROLE regress_shmuring_monitor;
SELECT shmuring_read_page('t', 'main', 0);
SELECT * FROM shmuring_compare('t');
SELECT count(*) FROM shmuring_slots WHERE state = 'invalid';
SELECT count(*) FROM shmuring_in_flight;
SELECT shard, watermark, ingested, lag, age, waiting FROM shmuring_shards;
SELECT is_serving, pid > 0 AS has_pid FROM shmuring_communicator;
SELECT part, count(*) FROM pg_stat_shmuring GROUP BY part ORDER BY part;
SELECT shmuring_stat_reset();
RESET ROLE;
-- Row-level security hides rows, a page does not, nor does one of an index.
ALTER TABLE t ENABLE ROW LEVEL SECURITY;
SET ROLE regress_shmuring_reader;
SELECT shmuring_read_page('t', 'main', 0);
SELECT shmuring_read_page('t_i', 'main', 0);
SELECT * FROM shmuring_compare('t');
RESET ROLE;
-- EXECUTE alone does not do.
GRANT EXECUTE ON FUNCTION shmuring_rel_size(regclass, text) TO regress_shmuring_monitor;
SET ROLE regress_shmuring_monitor;
SELECT shmuring_rel_size('t', 'main');
RESET ROLE;

-- Counters.
SELECT shmuring_stat_reset();
SELECT length(shmuring_read_page('t', 'main', 0));
SELECT name, value FROM pg_stat_shmuring
	WHERE part = 'backends' AND name IN ('submitted', 'failed', 'cancelled') ORDER BY name;

SET shmuring.debug_compare_local = 'most';
SET shmuring.debug_compare_local = 'all';
SELECT length(shmuring_read_page('t', 'main', 0));
SELECT length(shmuring_read_page('t', 'vm', 0));
SELECT name, value FROM pg_stat_shmuring WHERE part = 'debug_compare_local' ORDER BY name;
RESET shmuring.debug_compare_local;

-- It is of the newest version.
ALTER EXTENSION shmuring UPDATE;

REVOKE EXECUTE ON FUNCTION shmuring_rel_size(regclass, text) FROM regress_shmuring_monitor;
DROP ROLE regress_shmuring_reader, regress_shmuring_monitor;
DROP TABLE t, empty;
DROP EXTENSION shmuring;
