/* SPDX-License-Identifier: Apache-2.0 */
/*
 * views.c: what is in the region, for views. Slots are looked at through a mapping of our own that cannot be written:
 * their bytes change while we read them, so a line may be of two requests at once, and no more than wrong.
 */
#include "shmuring_ext.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "common/relpath.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(shmuring_slots_sql);
PG_FUNCTION_INFO_V1(shmuring_shards_sql);
PG_FUNCTION_INFO_V1(shmuring_stat_sql);
PG_FUNCTION_INFO_V1(shmuring_stat_reset_sql);
PG_FUNCTION_INFO_V1(shmuring_communicator_sql);

#define SLOT_COLUMNS 18
#define SHARD_COLUMNS 7

static const char *const owner_names[] = {
	"submitted",      "finished",   "failed",        "cancelled",       "doorbell_rings",  "futex_waits",
	"pending_pushes", "leftovers",  "rel_size_hits", "rel_size_spared", "rel_size_misses",
};

static const char *const role_names[] = {
	"claimed",    "stale_hints",   "stepped_over", "pending_hints", "lost_hints", "damage",
	"parks",      "wakes",         "refused",      "old_life",      "expired",    "dropped",
	"freed",      "take_overs",    "reclaimed",    "bad_words",     "failed",     "deferred",
	"batches",    "unhinted",      "blocked",      "joined",        "sent_again", "lsn_timeouts",
	"cache_hits", "prefetch_hits", "cache_misses", "compared",      "differed",
};

/* The region, for reading, in memory of this process's own mapping; checked, as far as sizes go. */
static const struct shmuring_header *map(void)
{
	static const struct shmuring_header *header = NULL;
	struct stat st;
	void *mapped;

	/* Attaching has refused what is no region. */
	(void)shx_region();
	if (header == NULL)
		header = shx_region_memory();
	if (header != NULL)
		return header;
	if (fstat(shx_region_fd, &st) < 0)
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not stat the region: %m")));
	mapped = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, shx_region_fd, 0);
	if (mapped == MAP_FAILED)
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not map the region: %m")));
	header = mapped;
	return header;
}

/* The slots, and how many there are. */
static const struct shmuring_slot *slots_of(uint32 *count)
{
	const struct shmuring_header *header = map();
	struct shmuring_config config = header->config;
	struct shmuring_region_info info;

	if (shmuring_region_info(shx_region(), &info) < 0 || config.offsets[3] > info.bytes ||
	    (info.bytes - config.offsets[3]) / sizeof(struct shmuring_slot) < info.slots)
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED), errmsg("the header of the region is damaged")));
	*count = info.slots;
	return (const struct shmuring_slot *)((const char *)header + config.offsets[3]);
}

static int64 now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* A time of nanoseconds up to now, as an interval. */
static Datum interval_since(int64 since)
{
	Interval *age = palloc0(sizeof(Interval));

	age->time = Max(now_ns() - since, 0) / 1000;
	return IntervalPGetDatum(age);
}

static uint64 load(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_RELAXED);
}

/* Shards that the communicator of this term has told of. */
static uint64 told_shards(const struct shmuring_shards *shards)
{
	if (load(&shards->epoch) != __atomic_load_n(&map()->role.epoch, __ATOMIC_RELAXED))
		return 0;
	return Min(load(&shards->count), SHMURING_MAX_SHARDS);
}

/* How many bytes of WAL a shard lacks to `lsn`. */
static uint64 behind(const struct shmuring_shards *shards, uint64 shard, XLogRecPtr lsn)
{
	XLogRecPtr told;

	if (shard >= told_shards(shards))
		return 0;
	told = load(&shards->marks[shard].told);
	return told < lsn ? lsn - told : 0;
}

/* Whether a process sleeps for the answer; one that is there wakes it, and the bit stays. */
static bool is_waited_for(uint64 word)
{
	return (word & SHMURING_WORD_WAITER) != 0 && (word & SHMURING_WORD_STATE) != SHMURING_STATE_COMPLETED;
}

/* Since when the request is known to be under way, as an interval; NULL if nobody noted it. */
static Datum age_of(const struct shmuring_slot *slot, uint64 word, bool *is_null)
{
	int state = (int)(word & SHMURING_WORD_STATE);
	int64 since = 0;

	if (state == SHMURING_STATE_PROCESSING)
		since = (int64)slot->claimed_at;
	if (since == 0 && is_waited_for(word))
		since = (int64)slot->waiting_since;
	*is_null = since == 0;
	return interval_since(since);
}

/* The WAL that a request lacks most of its blocks' shards to have, and of which shard; of none, that of its first. */
static uint64 lacks(const struct shmuring_slot *slot, const struct shmuring_raw_request *r, int *shard)
{
	const struct shmuring_shards *shards = &map()->shards;
	struct shmuring_rel rel = shmuring_rel_of(r->spc_oid, r->db_oid, r->rel_number, r->fork);
	bool is_page = r->opcode == SHMURING_OP_GET_PAGE || r->opcode == SHMURING_OP_GET_PAGE_AT ||
		       r->opcode == SHMURING_OP_PREFETCH;
	int count = is_page ? Max(1, Min(r->count, SHMURING_MAX_BLOCKS)) : 1;
	uint64 most = 0;

	*shard = is_page ? Max(0, shmuring_shard_of(shx_region(), rel, r->block)) : 0;
	/* Mutations wait for no WAL. */
	if (!is_page && r->opcode > SHMURING_OP_READ_SLRU)
		return 0;
	for (int i = 0; i < count; i++) {
		bool has_own = count > 1 && (r->flags & SHMURING_FLAG_BLOCK_LSNS) != 0;
		int of = is_page ? Max(0, shmuring_shard_of(shx_region(), rel, r->block + (uint32)i)) : 0;
		uint64 here = behind(shards, (uint64)of, has_own ? load(&slot->vector.lsns[i]) : r->lsn);

		if (here > most) {
			most = here;
			*shard = of;
		}
	}
	return most;
}

/* What an unfinished request waits for, as far as can be told without the communicator's help; NULL if nothing. */
static const char *waits_for(int state, uint64 lacking, bool is_served)
{
	switch (state) {
	case SHMURING_STATE_SUBMITTED:
		return is_served ? "communicator" : "no communicator";
	case SHMURING_STATE_PROCESSING:
		return !is_served ? "no communicator" : lacking > 0 ? "wal" : "page service";
	case SHMURING_STATE_COPYING:
		return is_served ? "copy" : "no communicator";
	default:
		return NULL;
	}
}

/* A line of shmuring_slots. */
static void slot_line(const struct shmuring_slot *slot, uint32 number, uint64 word, bool is_served, Datum *values,
		      bool *nulls)
{
	struct shmuring_raw_request r = slot->request;
	uint32 epoch = (uint32)(word >> SHMURING_WORD_EPOCH_SHIFT);
	int shard, n = 0;
	uint64 lacking = lacks(slot, &r, &shard);
	const char *awaited = waits_for((int)(word & SHMURING_WORD_STATE), lacking, is_served);

	memset(nulls, 0, SLOT_COLUMNS * sizeof(bool));
	nulls[n] = slot->control.owner_pid == 0;
	values[n++] = Int32GetDatum((int32)slot->control.owner_pid);
	values[n++] = Int64GetDatum(number);
	values[n++] = Int64GetDatum((uint32)word >> SHMURING_WORD_GENERATION_SHIFT);
	values[n++] = CStringGetTextDatum(shx_state((int)(word & SHMURING_WORD_STATE)));
	values[n++] = BoolGetDatum(is_waited_for(word));
	nulls[n] = epoch == 0;
	values[n++] = Int64GetDatum(epoch);
	values[n++] = CStringGetTextDatum(shx_operation(r.opcode));
	values[n++] = ObjectIdGetDatum(r.spc_oid);
	values[n++] = ObjectIdGetDatum(r.db_oid);
	values[n++] = ObjectIdGetDatum(r.rel_number);
	nulls[n] = r.fork > MAX_FORKNUM;
	values[n++] = CStringGetTextDatum(r.fork > MAX_FORKNUM ? "" : forkNames[r.fork]);
	values[n++] = Int64GetDatum(r.block);
	values[n++] = Int32GetDatum(r.count);
	values[n++] = LSNGetDatum(r.lsn);
	values[n] = age_of(slot, word, &nulls[n]);
	nulls[++n] = awaited == NULL;
	values[n++] = CStringGetTextDatum(awaited == NULL ? "" : awaited);
	values[n++] = Int32GetDatum(shard);
	values[n] = Int64GetDatum((int64)lacking);
}

/* shmuring_get_slots(): a line for each slot that is not idle. */
Datum shmuring_slots_sql(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *out = (ReturnSetInfo *)fcinfo->resultinfo;
	const struct shmuring_slot *slots;
	struct shmuring_region_info info;
	Datum values[SLOT_COLUMNS];
	bool nulls[SLOT_COLUMNS];
	uint32 count, i;

	InitMaterializedSRF(fcinfo, 0);
	slots = slots_of(&count);
	if (shmuring_region_info(shx_region(), &info) < 0)
		info.communicator = 0;
	for (i = 0; i < count; i++) {
		uint64 word = __atomic_load_n(&slots[i].word, __ATOMIC_ACQUIRE);

		if ((word & SHMURING_WORD_STATE) == SHMURING_STATE_IDLE)
			continue;
		slot_line(&slots[i], i, word, info.communicator != 0, values, nulls);
		tuplestore_putvalues(out->setResult, out->setDesc, values, nulls);
	}
	return (Datum)0;
}

/* shmuring_get_shards(): a line for each shard that the communicator has told of. */
Datum shmuring_shards_sql(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *out = (ReturnSetInfo *)fcinfo->resultinfo;
	const struct shmuring_shards *shards = &map()->shards;
	XLogRecPtr here = RecoveryInProgress() ? GetXLogReplayRecPtr(NULL) : GetFlushRecPtr(NULL);
	uint64 count = told_shards(shards);

	InitMaterializedSRF(fcinfo, 0);
	for (uint64 i = 0; i < count; i++) {
		const struct shmuring_shard_mark *mark = &shards->marks[i];
		uint64 proved = load(&mark->proved), waiting = load(&mark->waiting), raised = load(&mark->raised_at);
		bool lags = proved != PG_UINT64_MAX;
		Datum values[SHARD_COLUMNS] = { Int32GetDatum((int32)i),
						LSNGetDatum(proved),
						LSNGetDatum(load(&mark->told)),
						Int64GetDatum((int64)behind(shards, i, here)),
						interval_since((int64)raised),
						Int64GetDatum((int64)(waiting >> 32)),
						Int64GetDatum((int64)(uint32)waiting) };
		bool nulls[SHARD_COLUMNS] = { false, !lags || proved == 0, !lags, false, raised == 0, false, false };

		tuplestore_putvalues(out->setResult, out->setDesc, values, nulls);
	}
	return (Datum)0;
}

/* Counters of all owners together. */
static void sum_owners(uint64 *sums)
{
	struct shmuring_owner_stats stats;
	struct shmuring_region_info info;
	uint32 first, i;

	memset(sums, 0, sizeof(stats.counters));
	if (shmuring_region_info(shx_region(), &info) < 0)
		return;
	/* Tools behind the processes' slots own one range each, of any size. */
	for (first = 0; first < info.slots; first++)
		if (shmuring_owner_statistics(shx_region(), first, &stats) == 0)
			for (i = 0; i < lengthof(stats.counters); i++)
				sums[i] += stats.counters[i];
}

static void role_counters(uint64 *counters)
{
	struct shmuring_role_stats stats;
	int code = shmuring_role_statistics(shx_region(), &stats);

	if (code < 0)
		shx_raise_call(code, NULL, "read the counters");
	memcpy(counters, stats.counters, sizeof(stats.counters));
}

static void put(ReturnSetInfo *out, const char *part, const char *name, uint64 value)
{
	Datum values[3] = { CStringGetTextDatum(part), CStringGetTextDatum(name), Int64GetDatum((int64)value) };
	bool nulls[3] = { false, false, false };

	tuplestore_putvalues(out->setResult, out->setDesc, values, nulls);
}

/* shmuring_get_stat(): counters since the last reset. */
Datum shmuring_stat_sql(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *out = (ReturnSetInfo *)fcinfo->resultinfo;
	uint64 owners[lengthof(shx_shared->owner_base)], role[lengthof(shx_shared->role_base)];
	size_t i;

	InitMaterializedSRF(fcinfo, 0);
	(void)shx_region();
	/* Under the lock, so that no counter is below what it was at the reset. */
	LWLockAcquire(shx_shared->lock, LW_SHARED);
	sum_owners(owners);
	role_counters(role);
	for (i = 0; i < lengthof(owner_names); i++)
		put(out, "backends", owner_names[i], owners[i] - shx_shared->owner_base[i]);
	for (i = 0; i < lengthof(role_names); i++)
		put(out, "communicator", role_names[i], role[i] - shx_shared->role_base[i]);
	put(out, "debug_compare_local", "compared", pg_atomic_read_u64(&shx_shared->compared));
	put(out, "debug_compare_local", "differed", pg_atomic_read_u64(&shx_shared->differed));
	LWLockRelease(shx_shared->lock);
	return (Datum)0;
}

/* shmuring_stat_reset(): counters count from now on. Those in the region go on, for shmuring stat. */
Datum shmuring_stat_reset_sql(PG_FUNCTION_ARGS)
{
	(void)shx_region();
	LWLockAcquire(shx_shared->lock, LW_EXCLUSIVE);
	sum_owners(shx_shared->owner_base);
	role_counters(shx_shared->role_base);
	pg_atomic_write_u64(&shx_shared->compared, 0);
	pg_atomic_write_u64(&shx_shared->differed, 0);
	shx_shared->stats_reset = GetCurrentTimestamp();
	LWLockRelease(shx_shared->lock);
	PG_RETURN_VOID();
}

/* shmuring_communicator(): who serves the region, in one line. */
Datum shmuring_communicator_sql(PG_FUNCTION_ARGS)
{
	const struct shmuring_header *header = map();
	struct shmuring_region_info info;
	Datum values[7];
	bool nulls[7] = { false };
	TupleDesc desc;
	int code;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	code = shmuring_region_info(shx_region(), &info);
	if (code < 0)
		shx_raise_call(code, NULL, "ask about the region");
	values[0] = CStringGetTextDatum(shx_region_file());
	values[1] = BoolGetDatum(info.communicator != 0);
	nulls[2] = info.communicator == 0;
	values[2] = Int32GetDatum((int32)header->role.pid);
	values[3] = Int64GetDatum(info.epoch);
	values[4] = Int64GetDatum(info.life);
	values[5] = Int64GetDatum(info.slots);
	nulls[6] = shx_shared->stats_reset == 0;
	values[6] = TimestampTzGetDatum(shx_shared->stats_reset);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
