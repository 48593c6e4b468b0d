/* SPDX-License-Identifier: Apache-2.0 */
/*
 * standby.c - this server as a source of pages, by file number.
 *
 * Runs in an ordinary backend, of a hot standby (page service `standby`, `shmuring compare`) or of a primary
 * (`shmuring compare`). Nothing here needs the region, shared_preload_libraries, or the catalogs of the database whose
 * pages are read.
 *
 * What is answered
 * ----------------
 * One bytea for a whole batch, integers in network byte order:
 *
 *   uint64 read_lsn      every change up to here is in the pages (standby: replayed before the first was read; primary:
 *                        flushed, and a standby that has replayed it has every change that these pages have)
 *   uint32 recovery      1: this server is in recovery
 *   uint32 count
 *   count times          uint32 status, uint64 page LSN, uint64 digest (masked pages alone)
 *   pages                of each block with status 0, in order, if they were asked for
 *
 * Status: 0 read; 1 there is no such relation fork; 2 the block is past its end; 3 the page is damaged (its header, or
 * its checksum; of masked pages also an LSN that no WAL has come to); 4 WAL up to not_modified_since was not replayed
 * in time, and nothing was read.
 */
#include "standby.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "storage/bufpage.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

/* Tests build these files alone, as a module without the library. */
#ifdef SHMURING_STANDBY_ALONE
PG_MODULE_MAGIC;
#endif

/* Most blocks of one call: 8 MiB. */
#define MAX_BLOCKS 1024
#define ENTRY_SIZE 20
#define HEADER_SIZE 16
/* How often replay is looked at; no version tells of its progress. */
#define POLL_MS 1

typedef struct
{
	uint32		status;
	XLogRecPtr	lsn;
	uint64		digest;
} entry;

PG_FUNCTION_INFO_V1(shmuring_source_pages_sql);
PG_FUNCTION_INFO_V1(shmuring_source_masked_sql);
PG_FUNCTION_INFO_V1(shmuring_source_sizes_sql);

/*
 * Raw pages of every database, tables of passwords included: what pg_read_server_files may read by other means.
 */
static void
check_role(void)
{
	if (!has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to read pages by file number"),
				 errhint("Only roles with privileges of \"pg_read_server_files\" may do so.")));
}

/*
 * Waits until WAL up to lsn has been replayed; false if that takes longer than timeout_ms. Answers interrupts. A
 * primary has what it has inserted. The snapshot of the query is held meanwhile, which may hold up replay itself:
 * clients that wait for long ask again instead.
 */
static bool
wait_for_replay(XLogRecPtr lsn, int timeout_ms)
{
	TimestampTz begin = GetCurrentTimestamp();

	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if ((RecoveryInProgress() ? GetXLogReplayRecPtr(NULL) : GetXLogInsertRecPtr()) >= lsn)
			return true;
		if (TimestampDifferenceExceeds(begin, GetCurrentTimestamp(), timeout_ms))
			return false;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, POLL_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

/* The end of WAL that was inserted, flushed. What begins a page of WAL is no record yet: such an LSN never comes. */
XLogRecPtr
shmuring__flush_all(void)
{
	XLogRecPtr	lsn = GetXLogInsertRecPtr();

	if (XLogSegmentOffset(lsn, wal_segment_size) == SizeOfXLogLongPHD)
		lsn -= SizeOfXLogLongPHD;
	else if (lsn % XLOG_BLCKSZ == SizeOfXLogShortPHD)
		lsn -= SizeOfXLogShortPHD;
	XLogFlush(lsn);
	return lsn;
}

/* No page of this server has a later LSN, but one that is damaged. */
XLogRecPtr
shmuring__newest(void)
{
	return RecoveryInProgress() ? GetCurrentReplayRecPtr(NULL) : GetXLogInsertRecPtr();
}

static bool
is_same_fork(const shmuring_block *a, const shmuring_block *b)
{
	return memcmp(&a->locator, &b->locator, sizeof(a->locator)) == 0 && a->fork == b->fork;
}

static char *
put64(char *to, uint64 v)
{
	v = pg_hton64(v);
	memcpy(to, &v, sizeof(v));
	return to + sizeof(v);
}

static char *
put32(char *to, uint32 v)
{
	v = pg_hton32(v);
	memcpy(to, &v, sizeof(v));
	return to + sizeof(v);
}

/* The head of an answer; its pages follow. */
static void
put_head(bytea *answer, XLogRecPtr read_lsn, int count, const entry *entries)
{
	char	   *to = VARDATA(answer);

	to = put64(to, read_lsn);
	to = put32(to, RecoveryInProgress() ? 1 : 0);
	to = put32(to, count);
	for (int i = 0; i < count; i++)
	{
		to = put32(to, entries[i].status);
		to = put64(to, entries[i].lsn);
		to = put64(to, entries[i].digest);
	}
}

/* The elements of an array argument: without nulls, one dimension, at most MAX_BLOCKS. */
static Datum *
elements(FunctionCallInfo fcinfo, int arg, Oid type, int16 size, char align, int *count)
{
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(arg);
	Datum	   *values;
	int			n;

	if (ARR_NDIM(array) > 1 || array_contains_nulls(array))
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("arrays of blocks must have one dimension and no nulls")));
	deconstruct_array(array, type, size, true, align, &values, NULL, &n);
	if (n > MAX_BLOCKS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("at most %d blocks can be read by one call", MAX_BLOCKS)));
	if (*count >= 0 && n != *count)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("arrays of blocks must be of one length")));
	*count = n;
	return values;
}

static ForkNumber
fork_of(int16 number)
{
	if (number < 0 || number > MAX_FORKNUM)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there is no fork %d", number)));
	return (ForkNumber) number;
}

static BlockNumber
block_of(int64 number)
{
	if (number < 0 || number > MaxBlockNumber)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there is no block %lld", (long long) number)));
	return (BlockNumber) number;
}

/* Arguments 0 to 3: tablespaces, databases, file numbers, forks. */
static shmuring_block *
forks(FunctionCallInfo fcinfo, int *count)
{
	Datum	   *spc = elements(fcinfo, 0, OIDOID, sizeof(Oid), TYPALIGN_INT, count);
	Datum	   *db = elements(fcinfo, 1, OIDOID, sizeof(Oid), TYPALIGN_INT, count);
	Datum	   *rel = elements(fcinfo, 2, OIDOID, sizeof(Oid), TYPALIGN_INT, count);
	Datum	   *fork = elements(fcinfo, 3, INT2OID, sizeof(int16), TYPALIGN_SHORT, count);
	shmuring_block *names = palloc0(sizeof(shmuring_block) * Max(*count, 1));

	for (int i = 0; i < *count; i++)
	{
		shmuring_locator locator =
			SHMURING_LOCATOR(DatumGetObjectId(spc[i]), DatumGetObjectId(db[i]), DatumGetObjectId(rel[i]));

		names[i].locator = locator;
		names[i].fork = fork_of(DatumGetInt16(fork[i]));
	}
	return names;
}

/* An answer in which nothing was read. */
static bytea *
not_yet(int count, entry *entries)
{
	bytea	   *answer = palloc(VARHDRSZ + HEADER_SIZE + (Size) count * ENTRY_SIZE);

	for (int i = 0; i < count; i++)
		entries[i].status = SHMURING_NOT_YET;
	put_head(answer, RecoveryInProgress() ? GetXLogReplayRecPtr(NULL) : InvalidXLogRecPtr, count, entries);
	SET_VARSIZE(answer, VARHDRSZ + HEADER_SIZE + (Size) count * ENTRY_SIZE);
	return answer;
}

/*
 * shmuring_source_pages(spc oid[], db oid[], rel oid[], fork int2[], block int8[], not_modified_since pg_lsn,
 *						 timeout_ms int, pages bool) returns bytea
 *
 * Blocks of any relations. `pages` false: they are only brought near.
 */
Datum
shmuring_source_pages_sql(PG_FUNCTION_ARGS)
{
	int			count = -1;
	shmuring_block *names;
	Datum	   *blocks;
	entry	   *entries;
	bytea	   *answer;
	char	   *to;
	XLogRecPtr	read_lsn;
	shmuring_fork	file = {0};
	bool		wants_pages = PG_GETARG_BOOL(7);
	char	   *page;

	check_role();
	names = forks(fcinfo, &count);
	blocks = elements(fcinfo, 4, INT8OID, sizeof(int64), TYPALIGN_DOUBLE, &count);
	entries = palloc0(sizeof(entry) * Max(count, 1));
	if (!wait_for_replay(PG_GETARG_LSN(5), PG_GETARG_INT32(6)))
		PG_RETURN_BYTEA_P(not_yet(count, entries));
	read_lsn = RecoveryInProgress() ? GetXLogReplayRecPtr(NULL) : shmuring__flush_all();
	answer = palloc(VARHDRSZ + HEADER_SIZE + (Size) count * (ENTRY_SIZE + (wants_pages ? BLCKSZ : 0)));
	to = VARDATA(answer) + HEADER_SIZE + (Size) count * ENTRY_SIZE;
	page = shmuring__make_scratch();
	for (int i = 0; i < count; i++)
	{
		names[i].block = block_of(DatumGetInt64(blocks[i]));
		if (i == 0 || !is_same_fork(&names[i], &names[i - 1]))
			shmuring__open_fork(&file, &names[i]);
		entries[i].status = shmuring__read_block(&file, &names[i], page);
		if (entries[i].status != SHMURING_PAGE_READ)
			continue;
		entries[i].lsn = PageGetLSN(page);
		if (wants_pages)
		{
			memcpy(to, page, BLCKSZ);
			to += BLCKSZ;
		}
	}
	put_head(answer, read_lsn, count, entries);
	SET_VARSIZE(answer, to - (char *) answer);
	PG_RETURN_BYTEA_P(answer);
}

/* Masks and digests a page that was read, and notes that; false if its LSN is one that no WAL has come to. */
static bool
digest_page(entry *e, const shmuring_block *b, char *scratch, RmgrId rmgr)
{
	XLogRecPtr	lsn = PageGetLSN(scratch);

	if (lsn > shmuring__newest())
	{
		e->status = SHMURING_DAMAGED;
		return false;
	}
	e->lsn = lsn;
	/* A page that is all zero is told by digest 0. */
	if (!shmuring__is_all_zero(scratch))
	{
		shmuring__mask_page(scratch, b->fork, b->block, rmgr);
		e->digest = shmuring__digest(scratch);
	}
	return true;
}

/*
 * shmuring_source_masked(spc oid, db oid, rel oid, fork int2, kind text, block int8[], not_modified_since pg_lsn,
 *						  timeout_ms int, exact bool, pages bool) returns bytea
 *
 * Blocks of one relation, masked as its access method masks them: their LSNs and digests, and with `pages` the masked
 * pages. On a primary read_lsn is the largest LSN of these pages, or with `exact` the end of WAL as it was when all of
 * them had been read, for what changes without an LSN; WAL is flushed up to there.
 */
Datum
shmuring_source_masked_sql(PG_FUNCTION_ARGS)
{
	shmuring_block	name = {.locator = SHMURING_LOCATOR(PG_GETARG_OID(0), PG_GETARG_OID(1), PG_GETARG_OID(2))};
	RmgrId		rmgr = shmuring__kind_of(text_to_cstring(PG_GETARG_TEXT_PP(4)));
	int			count = -1;
	Datum	   *blocks;
	entry	   *entries;
	bytea	   *answer;
	char	   *to;
	char	   *scratch;
	XLogRecPtr	read_lsn = InvalidXLogRecPtr;
	shmuring_fork	file;
	bool		wants_pages = PG_GETARG_BOOL(9);

	check_role();
	name.fork = fork_of(PG_GETARG_INT16(3));
	blocks = elements(fcinfo, 5, INT8OID, sizeof(int64), TYPALIGN_DOUBLE, &count);
	entries = palloc0(sizeof(entry) * Max(count, 1));
	if (!wait_for_replay(PG_GETARG_LSN(6), PG_GETARG_INT32(7)))
		PG_RETURN_BYTEA_P(not_yet(count, entries));
	if (RecoveryInProgress())
		read_lsn = GetXLogReplayRecPtr(NULL);
	answer = palloc(VARHDRSZ + HEADER_SIZE + (Size) count * (ENTRY_SIZE + (wants_pages ? BLCKSZ : 0)));
	to = VARDATA(answer) + HEADER_SIZE + (Size) count * ENTRY_SIZE;
	scratch = shmuring__make_scratch();
	shmuring__open_fork(&file, &name);
	for (int i = 0; i < count; i++)
	{
		name.block = block_of(DatumGetInt64(blocks[i]));
		entries[i].status = shmuring__read_block(&file, &name, scratch);
		if (entries[i].status != SHMURING_PAGE_READ || !digest_page(&entries[i], &name, scratch, rmgr))
			continue;
		if (!RecoveryInProgress())
			read_lsn = Max(read_lsn, entries[i].lsn);
		if (wants_pages)
		{
			memcpy(to, scratch, BLCKSZ);
			to += BLCKSZ;
		}
	}
	if (!RecoveryInProgress())
	{
		if (PG_GETARG_BOOL(8))
			read_lsn = shmuring__flush_all();
		else
			XLogFlush(read_lsn);
	}
	put_head(answer, read_lsn, count, entries);
	SET_VARSIZE(answer, to - (char *) answer);
	PG_RETURN_BYTEA_P(answer);
}

/*
 * shmuring_source_sizes(spc oid[], db oid[], rel oid[], fork int2[], not_modified_since pg_lsn, timeout_ms int)
 * returns int8[]
 *
 * Blocks of relation forks; -1: there is no such fork. Null: WAL was not replayed in time.
 */
Datum
shmuring_source_sizes_sql(PG_FUNCTION_ARGS)
{
	int			count = -1;
	shmuring_block *names;
	Datum	   *sizes;

	check_role();
	names = forks(fcinfo, &count);
	if (!wait_for_replay(PG_GETARG_LSN(4), PG_GETARG_INT32(5)))
		PG_RETURN_NULL();
	sizes = palloc(sizeof(Datum) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		shmuring_fork	file;

		shmuring__open_fork(&file, &names[i]);
		sizes[i] = Int64GetDatum(file.exists ? (int64) smgrnblocks(file.reln, file.fork) : -1);
	}
	PG_RETURN_ARRAYTYPE_P(construct_array(sizes, count, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}
