/* What CREATE EXTENSION shmuring makes. Once released it is not edited: changes are scripts shmuring--0.1--0.2.sql. */
\echo Use "CREATE EXTENSION shmuring" to load this file. \quit

CREATE FUNCTION shmuring_version() RETURNS text
	AS 'MODULE_PATHNAME', 'shmuring_version_sql' LANGUAGE C STABLE STRICT PARALLEL SAFE;

/* Pages through the ring. */
CREATE FUNCTION shmuring_read_page(relation regclass, fork text, block bigint) RETURNS bytea
	AS 'MODULE_PATHNAME', 'shmuring_read_page_sql' LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
CREATE FUNCTION shmuring_read_page(relation regclass, fork text, block bigint, lsn pg_lsn) RETURNS bytea
	AS 'MODULE_PATHNAME', 'shmuring_read_page_at_sql' LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
CREATE FUNCTION shmuring_prefetch(relation regclass, fork text, first bigint, blocks bigint) RETURNS bigint
	AS 'MODULE_PATHNAME', 'shmuring_prefetch_sql' LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
CREATE FUNCTION shmuring_rel_size(relation regclass, fork text) RETURNS bigint
	AS 'MODULE_PATHNAME', 'shmuring_rel_size_sql' LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
CREATE FUNCTION shmuring_last_written_lsn(relation regclass, fork text, block bigint) RETURNS pg_lsn
	AS 'MODULE_PATHNAME', 'shmuring_last_written_lsn_sql' LANGUAGE C VOLATILE STRICT PARALLEL SAFE;

/* This server's pages against the page service's. */
CREATE FUNCTION shmuring_compare(relation regclass, fork text DEFAULT 'main', first_block bigint DEFAULT 0,
		last_block bigint DEFAULT NULL, rate integer DEFAULT 0, OUT block bigint, OUT difference text,
		OUT local_lsn pg_lsn, OUT remote_lsn pg_lsn, OUT first_offset integer)
	RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'shmuring_compare_sql' LANGUAGE C VOLATILE PARALLEL RESTRICTED;

REVOKE ALL ON FUNCTION
	shmuring_compare(regclass, text, bigint, bigint, integer),
	shmuring_read_page(regclass, text, bigint),
	shmuring_read_page(regclass, text, bigint, pg_lsn),
	shmuring_prefetch(regclass, text, bigint, bigint),
	shmuring_rel_size(regclass, text),
	shmuring_last_written_lsn(regclass, text, bigint)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
	shmuring_compare(regclass, text, bigint, bigint, integer),
	shmuring_read_page(regclass, text, bigint),
	shmuring_read_page(regclass, text, bigint, pg_lsn),
	shmuring_prefetch(regclass, text, bigint, bigint),
	shmuring_rel_size(regclass, text),
	shmuring_last_written_lsn(regclass, text, bigint)
TO pg_read_all_data;

/* What the region is doing. */
CREATE FUNCTION shmuring_get_slots(OUT pid integer, OUT slot bigint, OUT generation bigint, OUT state text,
		OUT is_waited_for boolean, OUT epoch bigint, OUT operation text, OUT reltablespace oid,
		OUT reldatabase oid, OUT relfilenode oid, OUT fork text, OUT block bigint, OUT blocks integer,
		OUT lsn pg_lsn, OUT age interval, OUT waits_for text, OUT shard integer, OUT behind bigint)
	RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'shmuring_slots_sql' LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
CREATE VIEW shmuring_slots AS
	SELECT pid, slot, generation, state, is_waited_for, epoch, operation, reltablespace, reldatabase, relfilenode, fork,
		block, blocks, lsn, age
	FROM shmuring_get_slots();
CREATE VIEW shmuring_in_flight AS
	SELECT pid, slot, generation, operation, reltablespace, reldatabase, relfilenode, fork, block, blocks, lsn, age,
		is_waited_for, waits_for, shard, behind
	FROM shmuring_get_slots() WHERE waits_for IS NOT NULL;

CREATE FUNCTION shmuring_get_shards(OUT shard integer, OUT watermark pg_lsn, OUT ingested pg_lsn, OUT lag bigint,
		OUT age interval, OUT waiting bigint, OUT batches bigint)
	RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'shmuring_shards_sql' LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
CREATE VIEW shmuring_shards AS SELECT * FROM shmuring_get_shards();

CREATE FUNCTION shmuring_get_communicator(OUT region text, OUT is_serving boolean, OUT pid integer, OUT epoch bigint,
		OUT life bigint, OUT slots bigint, OUT stats_reset timestamptz)
	AS 'MODULE_PATHNAME', 'shmuring_communicator_sql' LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
CREATE VIEW shmuring_communicator AS SELECT * FROM shmuring_get_communicator();

CREATE FUNCTION shmuring_get_stat(OUT part text, OUT name text, OUT value bigint) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'shmuring_stat_sql' LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
CREATE VIEW pg_stat_shmuring AS SELECT * FROM shmuring_get_stat();

CREATE FUNCTION shmuring_stat_reset() RETURNS void
	AS 'MODULE_PATHNAME', 'shmuring_stat_reset_sql' LANGUAGE C VOLATILE STRICT PARALLEL SAFE;

REVOKE ALL ON FUNCTION
	shmuring_get_slots(), shmuring_get_shards(), shmuring_get_communicator(), shmuring_get_stat(),
	shmuring_stat_reset()
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
	shmuring_get_slots(), shmuring_get_shards(), shmuring_get_communicator(), shmuring_get_stat()
TO pg_monitor;
GRANT SELECT ON shmuring_slots, shmuring_in_flight, shmuring_shards, shmuring_communicator, pg_stat_shmuring
TO pg_monitor;

/*
 * This server as a source of pages, by file number: standby.c has the layout of the answers. Raw pages of every
 * database are what pg_read_server_files may read; the functions look for themselves.
 */
CREATE FUNCTION shmuring_source_pages(spc oid[], db oid[], rel oid[], fork int2[], block int8[],
	not_modified_since pg_lsn DEFAULT '0/0', timeout_ms int DEFAULT 1000, pages bool DEFAULT true) RETURNS bytea
	AS 'MODULE_PATHNAME', 'shmuring_source_pages_sql' LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION shmuring_source_pages IS 'pages by file number, as the page service standby asks for them';

CREATE FUNCTION shmuring_source_masked(spc oid, db oid, rel oid, fork int2, kind text, block int8[],
	not_modified_since pg_lsn DEFAULT '0/0', timeout_ms int DEFAULT 1000, exact bool DEFAULT false,
	pages bool DEFAULT false) RETURNS bytea
	AS 'MODULE_PATHNAME', 'shmuring_source_masked_sql' LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION shmuring_source_masked IS 'LSNs and digests of masked pages, as shmuring compare asks for them';

CREATE FUNCTION shmuring_source_sizes(spc oid[], db oid[], rel oid[], fork int2[],
	not_modified_since pg_lsn DEFAULT '0/0', timeout_ms int DEFAULT 1000) RETURNS int8[]
	AS 'MODULE_PATHNAME', 'shmuring_source_sizes_sql' LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION shmuring_source_sizes IS 'blocks of relation forks by file number; -1: there is no such fork';

REVOKE EXECUTE ON FUNCTION shmuring_source_pages, shmuring_source_masked, shmuring_source_sizes FROM PUBLIC;
GRANT EXECUTE ON FUNCTION shmuring_source_pages, shmuring_source_masked, shmuring_source_sizes TO pg_read_server_files;
