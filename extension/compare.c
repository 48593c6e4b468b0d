/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compare.c: this server's pages against the page service's. Ours are read as standby_read.c reads them, and bring
 * nothing into shared buffers; the page service's come through the ring. Both are masked as standby_mask.c does it.
 *
 * Why a difference is one, as for `shmuring compare`: a first look asks for a page as of its LSN here, and so waits for
 * no WAL but its own. What is not the same then is looked at again: here, there as of the end of WAL by then, and here
 * once more. A page that stood still here must be the same there. That must be seen in several looks in a row, since
 * bits of a visibility map change before their WAL is inserted.
 */
#include "shmuring_ext.h"
#include "standby.h"

#include "access/relation.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_class.h"
#include "common/relpath.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/bufpage.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/pg_lsn.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"
#include "utils/wait_event.h"

PG_FUNCTION_INFO_V1(shmuring_compare_sql);

#define COLUMNS 5
/* Looks after which a block that changes all the time is left alone, and the pause between two, ms. */
#define LOOKS 40
#define PAUSE 10

enum kind {
	SAME,
	DOUBT,
	BYTES,
	OLD,
	OLD_LOCAL,
	ZEROED,
	ZEROED_LOCAL,
	MISSING,
	EXTRA,
	DAMAGED,
	DAMAGED_LOCAL,
};

/* The words of `shmuring compare`, where they mean the same. */
static const char *const kinds[] = {
	"same",         "doubt",   "bytes", "old",     "old_local",     "zeroed",
	"zeroed_local", "missing", "extra", "damaged", "damaged_local",
};

/* A block as somebody has it. Its page is masked. */
struct copy {
	uint32 status; /* as enum shmuring_status */
	bool is_zero;
	XLogRecPtr lsn;
	char *page;
};

struct comparison {
	struct shmuring_rel rel;
	RmgrId rmgr;
	uint32 block;
	struct copy here, there, after;
	int32 rate; /* blocks a second; 0: as fast as it goes */
	TimestampTz begin;
	int64 looked, undecided;
};

/* Handlers that are built in have fixed numbers. */
RmgrId shx_rmgr_of(Relation rel)
{
	if (rel->rd_rel->relkind == RELKIND_SEQUENCE)
		return RM_SEQ_ID;
	switch (rel->rd_amhandler) {
	case F_HEAP_TABLEAM_HANDLER:
		return RM_HEAP_ID;
	case F_BTHANDLER:
		return RM_BTREE_ID;
	case F_HASHHANDLER:
		return RM_HASH_ID;
	case F_GISTHANDLER:
		return RM_GIST_ID;
	case F_GINHANDLER:
		return RM_GIN_ID;
	case F_SPGHANDLER:
		return RM_SPGIST_ID;
	case F_BRINHANDLER:
		return RM_BRIN_ID;
	default:
		return RM_GENERIC_ID;
	}
}

static void make_room(struct comparison *c)
{
	c->here.page = shmuring__make_scratch();
	c->there.page = shmuring__make_scratch();
	c->after.page = shmuring__make_scratch();
}

/* Masks a page that was read, once its header was looked at. */
static void take(struct comparison *c, struct copy *copy)
{
	copy->lsn = PageGetLSN(copy->page);
	copy->is_zero = shmuring__is_all_zero(copy->page);
	shmuring__mask_page(copy->page, c->rel.fork, c->block, c->rmgr);
}

static void read_here(struct comparison *c, struct copy *copy)
{
	copy->status = shx_read_here(c->rel, c->block, copy->page);
	if (copy->status != SHMURING_PAGE_READ)
		return;
	take(c, copy);
	if (copy->lsn > shmuring__newest())
		copy->status = SHMURING_DAMAGED;
}

/* The page service's page, with every change up to `lsn`. */
static void read_there(struct comparison *c, XLogRecPtr lsn)
{
	struct shmuring_request request;
	struct shmuring_completion done;

	shmuring_prep_get_page(&request, c->rel, c->block, 1, lsn);
	switch (shx_try_call(&request, &done, c->there.page)) {
	case 0:
		c->there.status = SHMURING_PAGE_READ;
		take(c, &c->there);
		break;
	case ENXIO:
		c->there.status = SHMURING_PAST_END;
		break;
	case ENOENT:
		c->there.status = SHMURING_NO_RELATION;
		break;
	case EBADMSG:
	case EUCLEAN:
		c->there.status = SHMURING_DAMAGED;
		break;
	default:
		shx_raise_result(&request, &done);
	}
}

static bool is_absent(const struct copy *copy)
{
	return copy->status == SHMURING_PAST_END || copy->status == SHMURING_NO_RELATION;
}

/* Nothing that was logged, and nothing wrong. */
static bool is_blank(const struct copy *copy)
{
	return is_absent(copy) || (copy->status == SHMURING_PAGE_READ && (copy->is_zero || copy->lsn == 0));
}

static bool is_same(const struct copy *a, const struct copy *b)
{
	if (is_absent(a) || is_absent(b))
		return is_absent(a) && is_absent(b);
	if (a->status != b->status || a->status != SHMURING_PAGE_READ)
		return a->status == b->status;
	return a->lsn == b->lsn && memcmp(a->page, b->page, BLCKSZ) == 0;
}

/*
 * What a second look came to. On a primary what is there was written here before; a standby has what the page service
 * has up to `known` alone, which may have lost the block, by a truncation, where it is ahead.
 */
static enum kind judge(const struct comparison *c, XLogRecPtr known)
{
	const struct copy *here = &c->here, *there = &c->there;
	bool is_stable = is_same(here, &c->after), is_standby = RecoveryInProgress();
	enum kind kind;

	if (is_blank(here) && is_blank(there))
		return SAME;
	if (is_same(here, there) || is_same(&c->after, there))
		return here->status == SHMURING_DAMAGED ? DAMAGED_LOCAL : SAME;
	if (there->status == SHMURING_DAMAGED)
		return DAMAGED;
	if (there->status == SHMURING_PAGE_READ && there->lsn > known)
		return is_standby ? DOUBT : DAMAGED;
	if (is_standby && is_blank(there))
		return DOUBT;
	/* As of `here` it has replayed, or ingested, this LSN, and no page goes back. */
	if (here->status == SHMURING_PAGE_READ && !is_absent(there) && there->lsn < here->lsn)
		return there->is_zero ? ZEROED : OLD;
	if (here->status == SHMURING_DAMAGED)
		kind = DAMAGED_LOCAL;
	else if (is_absent(here))
		kind = EXTRA;
	else if (is_absent(there))
		kind = MISSING;
	else if (here->is_zero)
		kind = ZEROED_LOCAL;
	else
		kind = there->lsn > here->lsn ? OLD_LOCAL : BYTES;
	return is_stable ? kind : DOUBT;
}

/* A look that waits for no other WAL than the page's own; enough where nothing is wrong. */
static bool is_same_at_once(struct comparison *c)
{
	read_here(c, &c->here);
	if (c->here.status == SHMURING_DAMAGED)
		return false;
	if (c->here.status == SHMURING_PAGE_READ && !RecoveryInProgress())
		XLogFlush(c->here.lsn);
	read_there(c, c->here.status == SHMURING_PAGE_READ ? c->here.lsn : 0);
	return is_blank(&c->here) ? is_blank(&c->there) : is_same(&c->here, &c->there);
}

static enum kind look_again(struct comparison *c)
{
	bool is_standby = RecoveryInProgress();
	XLogRecPtr known = is_standby ? GetXLogReplayRecPtr(NULL) : InvalidXLogRecPtr;
	XLogRecPtr since;

	read_here(c, &c->here);
	since = is_standby ? GetXLogReplayRecPtr(NULL) : shmuring__flush_all();
	if (c->here.status == SHMURING_PAGE_READ)
		since = Max(since, c->here.lsn);
	read_there(c, since);
	read_here(c, &c->after);
	return judge(c, is_standby ? known : GetXLogInsertRecPtr());
}

/* How often it must be seen in a row: where no LSN tells that nothing changed in between, more often. */
static int enough(enum kind kind)
{
	return kind == MISSING || kind == EXTRA ? 3 : 2;
}

/* Where the masked pages begin to differ; -1: nowhere, or there are no two. */
static int first_offset(const struct comparison *c)
{
	if (c->here.status != SHMURING_PAGE_READ || c->there.status != SHMURING_PAGE_READ)
		return -1;
	for (int i = 0; i < BLCKSZ; i++)
		if (c->here.page[i] != c->there.page[i])
			return i;
	return -1;
}

/* A line of the answer. */
static void put(const struct comparison *c, ReturnSetInfo *out, enum kind kind)
{
	int offset = first_offset(c);
	Datum values[COLUMNS];
	bool nulls[COLUMNS] = { false, false, c->here.status != SHMURING_PAGE_READ,
				c->there.status != SHMURING_PAGE_READ, offset < 0 };

	values[0] = Int64GetDatum(c->block);
	values[1] = CStringGetTextDatum(kinds[kind]);
	values[2] = LSNGetDatum(c->here.lsn);
	values[3] = LSNGetDatum(c->there.lsn);
	values[4] = Int32GetDatum(offset);
	tuplestore_putvalues(out->setResult, out->setDesc, values, nulls);
}

static void nap(long ms)
{
	(void)WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

static void compare_block(struct comparison *c, ReturnSetInfo *out)
{
	enum kind kind, last = SAME;
	int look, seen = 0;

	if (is_same_at_once(c))
		return;
	for (look = 0; look < LOOKS; look++) {
		kind = look_again(c);
		if (kind == SAME)
			return;
		seen = kind == last ? seen + 1 : 1;
		last = kind;
		if (kind != DOUBT && seen >= enough(kind)) {
			put(c, out, kind);
			return;
		}
		nap(PAUSE);
	}
	c->undecided++;
}

/* Sleeps as long as it is ahead of its rate. */
static void keep_rate(const struct comparison *c)
{
	TimestampTz due = c->begin + (c->rate > 0 ? c->looked * 1000000 / c->rate : 0);
	long ms;

	CHECK_FOR_INTERRUPTS();
	while (c->rate > 0 && (ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), due)) > 0)
		nap(Min(ms, 1000));
}

/* Where a page came from, if debug_compare_local asks for such; else NULL. */
static const char *asked_for(const struct shmuring_completion *done)
{
	bool is_cached = done->attempts == 0, is_prefetched = is_cached && done->value >> 32 != 0;

	if (is_prefetched && shx_compare_local >= SHX_PREFETCH)
		return "prefetch buffer";
	if (is_cached && !is_prefetched && shx_compare_local >= SHX_LFC)
		return "page cache";
	return shx_compare_local == SHX_ALL ? "page service" : NULL;
}

/*
 * One look is enough here: what changes a page of a main fork sets its LSN. If ours is later than what the answer was
 * to have, it was changed meanwhile, and if theirs is later than what we have replayed, we are behind.
 */
void shx_compare_answer(const struct shmuring_request *request, RmgrId rmgr, const struct shmuring_completion *done,
			const char *page)
{
	const char *from = asked_for(done);
	struct comparison c = { .rel = shmuring_rel_of(request->spc_oid, request->db_oid, request->rel_number,
						       request->fork),
				.rmgr = rmgr,
				.block = request->block };
	XLogRecPtr known = RecoveryInProgress() ? GetXLogReplayRecPtr(NULL) : InvalidXLogRecPtr;
	enum kind kind;
	int offset;

	if (from == NULL)
		return;
	make_room(&c);
	memcpy(c.there.page, page, BLCKSZ);
	c.there.status = SHMURING_PAGE_READ;
	take(&c, &c.there);
	read_here(&c, &c.here);
	if (c.here.status == SHMURING_PAGE_READ && c.here.lsn > Max(request->lsn, done->lsn))
		return;
	c.after = c.here;
	kind = judge(&c, RecoveryInProgress() ? known : GetXLogInsertRecPtr());
	if (kind == DOUBT)
		return;
	pg_atomic_fetch_add_u64(&shx_shared->compared, 1);
	if (kind == SAME)
		return;
	pg_atomic_fetch_add_u64(&shx_shared->differed, 1);
	offset = first_offset(&c);
	ereport(WARNING,
		(errcode(ERRCODE_DATA_CORRUPTED),
		 errmsg("a page from the %s differs from the one here: %s of %u/%u/%u main block %u", from, kinds[kind],
			c.rel.spc_oid, c.rel.db_oid, c.rel.rel_number, c.block),
		 offset < 0 ? errdetail("The LSN here is %X/%X, there %X/%X.", LSN_FORMAT_ARGS(c.here.lsn),
					LSN_FORMAT_ARGS(c.there.lsn)) :
			      errdetail("The LSN here is %X/%X, there %X/%X; bytes differ from offset %d on.",
					LSN_FORMAT_ARGS(c.here.lsn), LSN_FORMAT_ARGS(c.there.lsn), offset)));
}

/* What is compared. */
static void begin(struct comparison *c, Oid relid, text *fork_name)
{
	Relation rel = relation_open(relid, AccessShareLock);

	c->rel = shx_fork_of(relid, fork_name, &c->rmgr);
	if (c->rel.fork == FSM_FORKNUM)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("free space maps cannot be compared"),
				errdetail("They are not logged, so two right copies may differ.")));
	if (!RelationIsPermanent(rel) && c->rel.fork != INIT_FORKNUM)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("relation \"%s\" is not logged", RelationGetRelationName(rel))));
	relation_close(rel, NoLock);
	make_room(c);
	c->begin = GetCurrentTimestamp();
}

/* Behind the last block of the fork, here or there. */
static int64 end_of(const struct comparison *c)
{
	XLogRecPtr since = RecoveryInProgress() ? GetXLogReplayRecPtr(NULL) : shmuring__flush_all();
	int64 ours = shx_size_here(c->rel);
	struct shmuring_request request;
	struct shmuring_completion done;

	shmuring_prep_rel_size(&request, c->rel, since, 0);
	if (shx_try_call(&request, &done, NULL) == 0)
		return Max(ours, (int64)done.value);
	if (done.error != ENOENT)
		shx_raise_result(&request, &done);
	return ours;
}

/*
 * shmuring_compare(relation regclass, fork text, first_block bigint, last_block bigint, rate integer) returns setof
 * record: a line for each block that differs.
 */
Datum shmuring_compare_sql(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *out = (ReturnSetInfo *)fcinfo->resultinfo;
	struct comparison c = { 0 };
	int64 block, last;

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		return (Datum)0;
	begin(&c, PG_GETARG_OID(0), PG_GETARG_TEXT_PP(1));
	block = PG_ARGISNULL(2) ? 0 : shx_block_of(PG_GETARG_INT64(2));
	last = PG_ARGISNULL(3) ? MaxBlockNumber : shx_block_of(PG_GETARG_INT64(3));
	c.rate = PG_ARGISNULL(4) ? 0 : PG_GETARG_INT32(4);
	if (c.rate < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("the rate must not be negative")));
	for (last = Min(last, end_of(&c) - 1); block <= last; block++) {
		keep_rate(&c);
		c.block = (uint32)block;
		compare_block(&c, out);
		c.looked++;
	}
	if (c.undecided > 0)
		ereport(NOTICE,
			(errmsg(INT64_FORMAT " of " INT64_FORMAT " blocks could not be compared", c.undecided,
				c.looked),
			 errdetail("They changed all the time, or the page service is ahead of this server.")));
	return (Datum)0;
}
