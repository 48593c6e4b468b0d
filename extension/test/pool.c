/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool.c: functions of the tests, in a build with TEST_FUNCTIONS=1: reads whose pages the communicator puts straight
 * into shared buffers. On a stock server nothing else asks for that: a buffer there waits for its own file, not for us.
 *
 * The buffers are those of a scratch relation that nobody else uses meanwhile. They are pinned, not locked: who holds a
 * content lock sees no interrupts. What was in them is put back.
 */
#include "../shmuring_ext.h"

#include <unistd.h>

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#include <shmuring/host.h>

PG_FUNCTION_INFO_V1(shmuring_test_read_sql);
PG_FUNCTION_INFO_V1(shmuring_test_serve_sql);

/* What the communicator of the test fills pages with. */
#define PATTERN 0xa5

static struct shmuring_rel main_fork_of(Relation rel)
{
#if PG_VERSION_NUM >= 160000
	return shmuring_rel_of(rel->rd_locator.spcOid, rel->rd_locator.dbOid, rel->rd_locator.relNumber, MAIN_FORKNUM);
#else
	return shmuring_rel_of(rel->rd_node.spcNode, rel->rd_node.dbNode, rel->rd_node.relNode, MAIN_FORKNUM);
#endif
}

/*
 * shmuring_test_read(scratch regclass, relation regclass, first bigint, blocks int) returns bytea: blocks of the
 * relation, by way of the first buffers of `scratch`.
 */
Datum shmuring_test_read_sql(PG_FUNCTION_ARGS)
{
	Relation scratch = relation_open(PG_GETARG_OID(0), AccessExclusiveLock);
	Relation source = relation_open(PG_GETARG_OID(1), AccessShareLock);
	uint32 first = (uint32)PG_GETARG_INT64(2);
	int n = PG_GETARG_INT32(3), i;
	bytea *pages = palloc(VARHDRSZ + SHMURING_MAX_BLOCKS * BLCKSZ);
	char *before = palloc(SHMURING_MAX_BLOCKS * BLCKSZ);
	Buffer buffers[SHMURING_MAX_BLOCKS];
	uint32 places[SHMURING_MAX_BLOCKS];
	struct shmuring_request request;
	struct shmuring_completion done;

	if (scratch->rd_rel->relpersistence != RELPERSISTENCE_UNLOGGED || n < 1 || n > SHMURING_MAX_BLOCKS ||
	    RelationGetNumberOfBlocks(scratch) < (BlockNumber)n)
		ereport(ERROR, (errmsg("an unlogged relation of at least 1 to 32 blocks is needed")));
	for (i = 0; i < n; i++) {
		buffers[i] = ReadBuffer(scratch, (BlockNumber)i);
		places[i] = (uint32)buffers[i] - 1;
		memcpy(before + (Size)i * BLCKSZ, BufferGetPage(buffers[i]), BLCKSZ);
	}
	shmuring_prep_get_page(&request, main_fork_of(source), first, (uint8)n, 0);
	shmuring_set_buffers(&request, SHX_SHARED_BUFFERS, places);
	PG_TRY();
	{
		shx_call(&request, &done, NULL);
		for (i = 0; i < n; i++)
			memcpy(VARDATA(pages) + (Size)i * BLCKSZ, BufferGetPage(buffers[i]), BLCKSZ);
		SET_VARSIZE(pages, VARHDRSZ + (Size)n * BLCKSZ);
	}
	PG_FINALLY();
	{
		for (i = 0; i < n; i++) {
			memcpy(BufferGetPage(buffers[i]), before + (Size)i * BLCKSZ, BLCKSZ);
			ReleaseBuffer(buffers[i]);
		}
	}
	PG_END_TRY();
	relation_close(source, AccessShareLock);
	relation_close(scratch, AccessExclusiveLock);
	PG_RETURN_BYTEA_P(pages);
}

/* Answers one request, which it copies to only once there is a file `go`. What came of the answer. */
static int answer_one(struct shmuring_communicator *communicator, const char *go)
{
	char page[BLCKSZ];
	struct shmuring_claim claim;
	int i, n, code = 0;

	do {
		CHECK_FOR_INTERRUPTS();
		n = shmuring_communicator_reap_or_park(communicator, SHMURING_STATE_COPYING, &claim, 1, 100000000);
		if (n == 0)
			n = shmuring_communicator_audit(communicator, &claim, 1);
	} while (n == 0);
	if (n < 0)
		return n;
	/* As one that is stopped: nothing ends this. */
	while (access(go, F_OK) != 0)
		pg_usleep(1000);
	memset(page, PATTERN, sizeof(page));
	for (i = 0; i < claim.count && code == 0; i++)
		code = shmuring_claim_deliver(communicator, claim.ref, (uint32)i, page, sizeof(page));
	return code < 0 ? code : shmuring_claim_complete(communicator, claim.ref, 0, 0);
}

/* shmuring_test_serve(go text) returns text: this backend is the communicator for one request. */
Datum shmuring_test_serve_sql(PG_FUNCTION_ARGS)
{
	const char *go = text_to_cstring(PG_GETARG_TEXT_PP(0));
	struct shmuring_communicator *communicator;
	struct shmuring_error err;
	int code = shmuring_communicator_take_role(shx_region(), &communicator, &err);

	if (code < 0)
		shx_raise_call(code, err.text, "take the role of the communicator");
	PG_TRY();
	{
		code = answer_one(communicator, go);
	}
	PG_FINALLY();
	{
		(void)shmuring_communicator_release_role(communicator);
	}
	PG_END_TRY();
	PG_RETURN_TEXT_P(cstring_to_text(code == 0 ? "completed" : shmuring_strerror(code)));
}
