/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pages.c: pages, prefetch and sizes by SQL. The ring reads where the page service does: what only this server's
 * buffers hold, and was not written out or replayed there, is not seen.
 */
#include "shmuring_ext.h"
#include "standby.h"

#include "access/relation.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_class.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "storage/bufpage.h"
#include "storage/smgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/rel.h"
#include "utils/rls.h"

#if PG_VERSION_NUM >= 160000
#include "storage/relfilelocator.h"
#include "varatt.h"
#endif

PG_FUNCTION_INFO_V1(shmuring_read_page_sql);
PG_FUNCTION_INFO_V1(shmuring_read_page_at_sql);
PG_FUNCTION_INFO_V1(shmuring_prefetch_sql);
PG_FUNCTION_INFO_V1(shmuring_rel_size_sql);
PG_FUNCTION_INFO_V1(shmuring_last_written_lsn_sql);

/* The relation whose rows are in the pages: an index has those of its table. */
static Oid rows_of(Relation rel)
{
	return rel->rd_index != NULL ? rel->rd_index->indrelid : RelationGetRelid(rel);
}

/*
 * The relation fork that the caller names, if its bytes are the caller's to see. The lock is kept to the end of the
 * transaction, as a query's: until then the fork's file stays, and no block is cut off it.
 */
struct shmuring_rel shx_fork_of(Oid relid, text *fork_name, RmgrId *rmgr)
{
	ForkNumber fork = forkname_to_number(text_to_cstring(fork_name));
	Relation rel = relation_open(relid, AccessShareLock);
	AclResult acl = pg_class_aclcheck(relid, GetUserId(), ACL_SELECT);
	struct shmuring_rel named;

	if (!RELKIND_HAS_STORAGE(rel->rd_rel->relkind))
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
				errmsg("relation \"%s\" does not have storage", RelationGetRelationName(rel))));
	if (RelationUsesLocalBuffers(rel))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("relation \"%s\" is temporary, no page service has it",
				       RelationGetRelationName(rel))));
	if (acl != ACLCHECK_OK)
		aclcheck_error(acl, get_relkind_objtype(rel->rd_rel->relkind), RelationGetRelationName(rel));
	/* A page has all rows. */
	if (check_enable_rls(rows_of(rel), InvalidOid, true) == RLS_ENABLED)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				errmsg("row-level security hides rows of relation \"%s\"",
				       RelationGetRelationName(rel))));
#if PG_VERSION_NUM >= 160000
	named = shmuring_rel_of(rel->rd_locator.spcOid, rel->rd_locator.dbOid, rel->rd_locator.relNumber, (uint8)fork);
#else
	named = shmuring_rel_of(rel->rd_node.spcNode, rel->rd_node.dbNode, rel->rd_node.relNode, (uint8)fork);
#endif
	if (rmgr != NULL)
		*rmgr = shx_rmgr_of(rel);
	relation_close(rel, NoLock);
	return named;
}

uint32 shx_block_of(int64 block)
{
	if (block < 0 || block > MaxBlockNumber)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("block number " INT64_FORMAT " is out of range", block),
				errdetail("Blocks are numbered from 0 to %u.", MaxBlockNumber)));
	return (uint32)block;
}

/* A block's place, and its fork's files as they are now. */
static shmuring_block place_of(struct shmuring_rel rel, uint32 block, shmuring_fork *file)
{
	shmuring_block at = { .locator = SHMURING_LOCATOR(rel.spc_oid, rel.db_oid, rel.rel_number),
			      .fork = (ForkNumber)rel.fork,
			      .block = block };

	/* Anew for each: an invalidation may have closed the files. */
	shmuring__open_fork(file, &at);
	return at;
}

uint32 shx_read_here(struct shmuring_rel rel, uint32 block, char *page)
{
	shmuring_fork file;
	shmuring_block at = place_of(rel, block, &file);

	return shmuring__read_block(&file, &at, page);
}

int64 shx_size_here(struct shmuring_rel rel)
{
	shmuring_fork file;

	(void)place_of(rel, 0, &file);
	return file.exists ? smgrnblocks(file.reln, file.fork) : 0;
}

/*
 * The end of the last record that is flushed, or of a later one. What is flushed in the background ends where a page of
 * WAL does, perhaps within a record, whose rest nobody may flush for long: a standby never replays up to there.
 */
static XLogRecPtr flushed_record(void)
{
	XLogRecPtr flushed = GetFlushRecPtr(NULL);

	return flushed % XLOG_BLCKSZ == 0 ? shmuring__flush_all() : flushed;
}

/*
 * Since when nothing was modified, as far as a page service can know it. Nobody notes what this server writes, so it is
 * all that has been flushed, or what the table of last-written LSNs says if that is later.
 */
static uint64 not_modified_since(uint64 noted)
{
	uint64 known = RecoveryInProgress() ? GetXLogReplayRecPtr(NULL) : flushed_record();

	return Max(known, noted);
}

/* What the table of last-written LSNs says of a block. */
static uint64 noted_of(struct shmuring_rel rel, uint32_t block)
{
	uint64_t lsn = 0;
	int code = shmuring_written_get(shx_region(), rel, block, &lsn);

	if (code < 0)
		shx_raise_call(code, NULL, "look up a last-written LSN");
	return lsn;
}

/*
 * Since when a block was not modified: its LSN here, which every logged change sets, so that a page service that lags
 * is waited for by those alone who ask for what it lacks. WAL is flushed up to there (S9), or it might never come. A
 * block that is new or not here has none, and in maps bits change without: then it is all that has been flushed.
 */
static uint64 block_lsn(struct shmuring_rel rel, uint32 block, char *scratch)
{
	XLogRecPtr lsn = InvalidXLogRecPtr;

	if (rel.fork == MAIN_FORKNUM && shx_read_here(rel, block, scratch) == SHMURING_PAGE_READ)
		lsn = PageGetLSN(scratch);
	if (lsn == InvalidXLogRecPtr || lsn > shmuring__newest())
		return not_modified_since(noted_of(rel, block));
	if (!RecoveryInProgress())
		XLogFlush(lsn);
	return lsn;
}

/* Reads a block since `lsn`, at most `limit`. */
static bytea *read_page(struct shmuring_request *request, struct shmuring_completion *done, struct shmuring_rel rel,
			XLogRecPtr limit)
{
	bytea *page = palloc(BLCKSZ + VARHDRSZ);
	char *scratch = shmuring__make_scratch();
	int error;

	SET_VARSIZE(page, BLCKSZ + VARHDRSZ);
	request->lsn = Min(limit, block_lsn(rel, request->block, scratch));
	error = shx_try_call(request, done, VARDATA(page));
	/* Files that are copied whole, those of a new database, have pages that are older than themselves. */
	if (error == ENOENT || error == ENXIO) {
		request->lsn = Min(limit, not_modified_since(noted_of(rel, request->block)));
		error = shx_try_call(request, done, VARDATA(page));
	}
	if (error != 0)
		shx_raise_result(request, done);
	return page;
}

/* shmuring_read_page(relation regclass, fork text, block bigint) returns bytea */
Datum shmuring_read_page_sql(PG_FUNCTION_ARGS)
{
	RmgrId rmgr;
	struct shmuring_rel rel = shx_fork_of(PG_GETARG_OID(0), PG_GETARG_TEXT_PP(1), &rmgr);
	uint32 block = shx_block_of(PG_GETARG_INT64(2));
	struct shmuring_request request;
	struct shmuring_completion done;
	bytea *page;

	shmuring_prep_get_page(&request, rel, block, 1, 0);
	page = read_page(&request, &done, rel, PG_UINT64_MAX);
	if (rel.fork == MAIN_FORKNUM)
		shx_compare_answer(&request, rmgr, &done, VARDATA(page));
	PG_RETURN_BYTEA_P(page);
}

/* shmuring_read_page(relation regclass, fork text, block bigint, lsn pg_lsn) returns bytea */
Datum shmuring_read_page_at_sql(PG_FUNCTION_ARGS)
{
	struct shmuring_rel rel = shx_fork_of(PG_GETARG_OID(0), PG_GETARG_TEXT_PP(1), NULL);
	uint32 block = shx_block_of(PG_GETARG_INT64(2));
	XLogRecPtr at = PG_GETARG_LSN(3);
	struct shmuring_request request;
	struct shmuring_completion done;

	shmuring_prep_get_page_at(&request, rel, block, 1, at, 0);
	PG_RETURN_BYTEA_P(read_page(&request, &done, rel, at));
}

/*
 * shmuring_prefetch(relation regclass, fork text, first bigint, blocks bigint) returns bigint: asks for so many blocks,
 * waits for none of them but for room to ask, and tells how many it asked for.
 */
Datum shmuring_prefetch_sql(PG_FUNCTION_ARGS)
{
	struct shmuring_rel rel = shx_fork_of(PG_GETARG_OID(0), PG_GETARG_TEXT_PP(1), NULL);
	int64 first = shx_block_of(PG_GETARG_INT64(2));
	int64 blocks = PG_GETARG_INT64(3);
	int64 asked = 0;
	char *scratch = shmuring__make_scratch();

	if (blocks < 0 || blocks > (int64)MaxBlockNumber + 1 - first)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("number of blocks " INT64_FORMAT " is out of range", blocks)));
	while (asked < blocks) {
		uint8 count = (uint8)Min(blocks - asked, SHMURING_MAX_BLOCKS);
		struct shmuring_backend *b = shx_backend();
		struct shmuring_request request;
		uint64_t lsns[SHMURING_MAX_BLOCKS];
		shmuring_ref ref;
		int code;

		CHECK_FOR_INTERRUPTS();
		for (uint8 i = 0; i < count; i++)
			lsns[i] = block_lsn(rel, (uint32)(first + asked + i), scratch);
		shmuring_prep_prefetch(&request, rel, (uint32)(first + asked), count, 0);
		shmuring_set_block_lsns(&request, lsns);
		shx_wait_free(b);
		ref = shmuring_start(b, &request);
		if (ref < 0)
			shx_raise_call((int)ref, NULL, "start prefetch");
		code = shmuring_forget(b, ref);
		if (code < 0 && code != SHMURING_ERR_STALE)
			shx_raise_call(code, NULL, "leave a prefetch to itself");
		asked += count;
	}
	PG_RETURN_INT64(asked);
}

/* shmuring_rel_size(relation regclass, fork text) returns bigint: blocks. */
Datum shmuring_rel_size_sql(PG_FUNCTION_ARGS)
{
	struct shmuring_rel rel = shx_fork_of(PG_GETARG_OID(0), PG_GETARG_TEXT_PP(1), NULL);
	struct shmuring_request request;
	struct shmuring_completion done;

	shmuring_prep_rel_size(&request, rel, not_modified_since(0), 0);
	shx_call(&request, &done, NULL);
	PG_RETURN_INT64((int64)done.value);
}

/* shmuring_last_written_lsn(relation regclass, fork text, block bigint) returns pg_lsn: what was noted of a block. */
Datum shmuring_last_written_lsn_sql(PG_FUNCTION_ARGS)
{
	struct shmuring_rel rel = shx_fork_of(PG_GETARG_OID(0), PG_GETARG_TEXT_PP(1), NULL);

	PG_RETURN_LSN(noted_of(rel, shx_block_of(PG_GETARG_INT64(2))));
}
