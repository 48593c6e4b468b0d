/* SPDX-License-Identifier: Apache-2.0 */
/*
 * views.c: what is in the region, for views. Slots are looked at through a mapping of our own that cannot be written:
 * their bytes change while we read them, so a line may be of two requests at once, and no more than wrong.
 */
#include "shmuring_ext.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "common/relpath.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(shmuring_slots_sql);
PG_FUNCTION_INFO_V1(shmuring_stat_sql);
PG_FUNCTION_INFO_V1(shmuring_stat_reset_sql);
PG_FUNCTION_INFO_V1(shmuring_communicator_sql);

#define SLOT_COLUMNS 15

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

/* Whether a process sleeps for the answer; one that is there wakes it, and the bit stays. */
static bool is_waited_for(uint64 word)
{
	return (word & SHMURING_WORD_WAITER) != 0 && (word & SHMURING_WORD_STATE) != SHMURING_STATE_COMPLETED;
}

/* Since when the request is known to be under way, as an interval; NULL if nobody noted it. */
static Datum age_of(const struct shmuring_slot *slot, uint64 word, bool *is_null)
{
	int state = (int)(word & SHMURING_WORD_STATE);
	Interval *age = palloc0(sizeof(Interval));
	int64 since = 0;

	if (state == SHMURING_STATE_PROCESSING)
		since = (int64)slot->claimed_at;
	if (since == 0 && is_waited_for(word))
		since = (int64)slot->waiting_since;
	*is_null = since == 0;
	age->time = since == 0 ? 0 : (now_ns() - since) / 1000;
	return IntervalPGetDatum(age);
}

/* A line of shmuring_slots. */
static void slot_line(const struct shmuring_slot *slot, uint32 number, uint64 word, Datum *values, bool *nulls)
{
	struct shmuring_raw_request r = slot->request;
	uint32 epoch = (uint32)(word >> SHMURING_WORD_EPOCH_SHIFT);
	int n = 0;

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
}

/* shmuring_get_slots(): a line for each slot that is not idle. */
Datum shmuring_slots_sql(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *out = (ReturnSetInfo *)fcinfo->resultinfo;
	const struct shmuring_slot *slots;
	Datum values[SLOT_COLUMNS];
	bool nulls[SLOT_COLUMNS];
	uint32 count, i;

	InitMaterializedSRF(fcinfo, 0);
	slots = slots_of(&count);
	for (i = 0; i < count; i++) {
		uint64 word = __atomic_load_n(&slots[i].word, __ATOMIC_ACQUIRE);

		if ((word & SHMURING_WORD_STATE) == SHMURING_STATE_IDLE)
			continue;
		slot_line(&slots[i], i, word, values, nulls);
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
