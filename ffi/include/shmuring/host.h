/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shmuring/host.h: the communicator's side of a region, for the process that serves it.
 *
 * Two ways. A communicator of your own takes the role, reaps requests and answers them:
 *
 *	shmuring_communicator_take_role -> _sweep -> _reap_or_park, and shmuring_claim_*, until _release_role
 *
 * The communicator of shmuring, with its page services and its threads, runs inside a process of yours (a background
 * worker of PostgreSQL, say):
 *
 *	shmuring_host_start -> shmuring_host_next_log ... -> shmuring_host_stop -> shmuring_host_free
 *
 * Both are of a library that was built with them: with cargo's features `communicator` and `host`, which are the
 * default.
 *
 * Return values are those of shmuring.h. Unlike a backend's, functions here may allocate; those that wait say so.
 * None unwinds, longjmps or ends the process, and none may be longjmped over or called from a signal handler unless
 * it says so. A handle belongs to the process that made it: in a forked child every function that can fail answers
 * SHMURING_ERR_WRONG_PROCESS. A process with either handle never forks without exec: its child would share the lock
 * that proves the role.
 */
#ifndef SHMURING_HOST_H
#define SHMURING_HOST_H

#include "../shmuring.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The request was cancelled: its slot has been given back, and its buffers must not be touched. The claim is gone. */
#define SHMURING_ERR_WITHDRAWN (-ECANCELED)

/* ------------------------------------------------------------------------------ A communicator of your own */

/* The holder of the role of a region. Opaque. */
struct shmuring_communicator;

/* The claim was another communicator's before: it may have run already. */
#define SHMURING_CLAIM_AGAIN 0x1

/*
 * A claimed request: what it asks for, copied out of the slot and checked. `ref` names it in calls and in logs; the
 * rest is the caller's to read, or to change, as it likes. A claim is answered once, by _complete, _fail or _drop;
 * after that its name is SHMURING_ERR_STALE.
 */
struct shmuring_claim {
	shmuring_ref ref;
	uint64_t lsn; /* reads: not_modified_since; mutations: the LSN of the change */
	uint32_t spc_oid;
	uint32_t db_oid;
	uint32_t rel_number;
	uint32_t block;       /* first block, segment number, or new size in blocks */
	uint32_t arg;         /* blocks of a zero_extend */
	uint8_t opcode;       /* SHMURING_OP_* */
	uint8_t flags;        /* SHMURING_FLAG_* and SHMURING_CLASS_* */
	uint8_t fork;
	uint8_t count;        /* blocks or buffers */
	uint16_t pool;        /* where the buffers are */
	uint16_t claim_flags; /* SHMURING_CLAIM_* */
	uint32_t reserved;    /* 0 */
	uint64_t deadline;    /* with SHMURING_FLAG_DEADLINE: when to give up, CLOCK_MONOTONIC in ns */
	uint64_t request_lsn; /* with SHMURING_FLAG_REQUEST_LSN: read as of it */
	uint64_t claim_seq;   /* place in the order of mutations; 0 for a read */
};

/*
 * Takes the role of communicator of `region` and stores a handle in *out.
 *
 * Returns 0; SHMURING_ERR_ROLE_HELD while a living communicator holds it, even one that is stopped: nobody is
 * bypassed; SHMURING_ERR_BAD_MEMORY for a null pointer; -ENOMEM. `err`, unless NULL, gets the reason in words. On
 * an error *out is as it was.
 *
 * Allocates about 200 bytes for each slot of the region. Waits for nobody. The region's handle must outlive the
 * communicator, and its pools must have been registered before.
 */
int shmuring_communicator_take_role(struct shmuring_region *region, struct shmuring_communicator **out,
				    struct shmuring_error *err);

/*
 * Gives the role up and frees the handle. Claims that were not answered complete with ECANCELED: reap and answer
 * until there is nothing, first.
 *
 * Returns how many those were; -EBUSY while another thread is in one of the functions of the reaper. Call it
 * when no other thread uses the handle any more.
 */
int shmuring_communicator_release_role(struct shmuring_communicator *communicator);

/* Number of this term of the role, for logs; 0 for NULL. Any thread. */
uint32_t shmuring_communicator_epoch(const struct shmuring_communicator *communicator);

/* Sizes that were read are kept too. Not if pages come from servers that lag behind WAL: see _keep_sizes. */
#define SHMURING_SIZES_OF_READS 0x1

/*
 * Has the library keep the relation sizes of the region for you, which backends read with shmuring_cached_rel_size.
 * Nobody else can: a size that is too small would have an extend overwrite a live block. Call it once, after the role
 * was taken and before the first claim is handed out (later is as safe).
 *
 * From then on a fork is a miss from before the claim of a create, extend, zero_extend, truncate, unlink or
 * update_rel_size is handed out until _complete or _fail, which set the size before the answer is published: from
 * what the request said, not from what you pass. A failure leaves a miss, and _drop one that lasts until the next
 * communicator, since nobody has said that the change is over. With SHMURING_SIZES_OF_READS the answers to rel_size and
 * rel_exists are kept as well, unless a change overtook them. What this rests on:
 *
 * - An answered mutation is over: neither it nor an attempt at it is applied afterwards, even if it failed.
 * - A create succeeds if it has made the fork, empty. For one that may have found it, as after an attempt of yours
 *   whose end you did not hear of, call shmuring_claim_forget_size first. (SHMURING_CLAIM_AGAIN is seen to.)
 * - Nothing else changes sizes: if relations change by other means than requests, do not call this.
 * - With SHMURING_SIZES_OF_READS, the size that you answer is that after every mutation that was completed before the
 *   claim was handed out, whatever its `lsn`. A server that has not ingested all WAL may tell one from before.
 *
 * Returns 0, also if the region was made with room for no sizes; SHMURING_ERR_BAD_REQUEST for an unknown flag;
 * -EALREADY if they are kept; -ENOMEM, after which it may be called again; -EBUSY while another thread is in one of
 * the functions of the reaper.
 *
 * Allocates: here about 40 bytes for each size of the region and 50 for each slot; then a little for forks that claims
 * which are handed out are about. Where there is no memory for that, every size is forgotten and none is kept again;
 * nothing ends the process. Whatever hands out or answers such a claim takes a lock of the handle for a moment, also in
 * Copying; requests for pages do not. Any number of threads may answer. Ends with the role.
 */
int shmuring_communicator_keep_sizes(struct shmuring_communicator *communicator, uint32_t flags);

/*
 * The reaper's functions: one thread's at a time (-EBUSY for a second). Each stores up to `max` claims in `claims`
 * and returns how many; what it claimed beyond that comes first in the next call of any of them. Whoever answers at
 * once, in the thread that reaped, asks for SHMURING_STATE_COPYING in `to`, and does no I/O, takes no lock and
 * allocates nothing before the answer; everybody else for SHMURING_STATE_PROCESSING, which is what _sweep and _audit
 * give.
 *
 * Whatever a dead communicator had claimed comes before all else, marked SHMURING_CLAIM_AGAIN: mutations in the order
 * of their claims, then reads. Mutations that conflict are applied in the order in which they are handed out. One
 * with SHMURING_CLAIM_AGAIN may have been applied: a create that finds its relation, and an unlink that does not,
 * have succeeded.
 *
 * All return SHMURING_ERR_BAD_MEMORY for a null pointer and SHMURING_ERR_BAD_REQUEST for another `to`. A request of
 * one block takes no memory; one of more that there is no memory for is answered with ENOMEM, and not handed out.
 */

/* How many claims of a dead communicator are still to be handed out. */
int shmuring_communicator_inherited(const struct shmuring_communicator *communicator);

/*
 * Claims everything that is submitted, without a hint: once after the role was taken, so that requests which met no
 * communicator need not wait for the audit. Waits for nobody; bounded by the slots of the region.
 */
int shmuring_communicator_sweep(struct shmuring_communicator *communicator, struct shmuring_claim *claims,
				uint32_t max);

/* Claims what is on the ring. 0: nothing is. Waits for nobody. */
int shmuring_communicator_reap(struct shmuring_communicator *communicator, uint32_t to, struct shmuring_claim *claims,
			       uint32_t max);

/*
 * The same, but polls for a while and then sleeps, for at most `ns` and at most a second, if nothing is there. 0: the
 * time is up, or a signal or shmuring_communicator_wake came. Call _audit then.
 */
int shmuring_communicator_reap_or_park(struct shmuring_communicator *communicator, uint32_t to,
				       struct shmuring_claim *claims, uint32_t max, uint64_t ns);

/*
 * Looks at every slot, at most once a second (0 at once in between): for requests whose hint was lost, for slots to
 * give back, for damage. Call it whenever there was nothing to reap. Waits for nobody.
 */
int shmuring_communicator_audit(struct shmuring_communicator *communicator, struct shmuring_claim *claims,
				uint32_t max);

/*
 * Ends a sleep of the reaper; one that has not begun is not ended, so look once a second at what you wake it for. Any
 * thread, and signal handlers. Returns 0.
 */
int shmuring_communicator_wake(const struct shmuring_communicator *communicator);

/*
 * What to do with a claim: any thread, one at a time for each claim (a second one waits for the first). None of them
 * blocks but for that, or allocates. All return SHMURING_ERR_STALE for a claim that has been answered, _BAD_SLOT for
 * one that cannot be, and _BAD_MEMORY for a null pointer; and, but for _is_cancelled, _block_lsn and _forget_size,
 * SHMURING_ERR_WITHDRAWN if the request was cancelled: drop your work on it then, the claim is gone.
 */

/* 1 if the owner has given the request up, so that work for it is wasted; answer it all the same. Else 0. */
int shmuring_claim_is_cancelled(struct shmuring_communicator *communicator, shmuring_ref claim);

/*
 * Stores in *lsn since when block `i` of the request was not modified. SHMURING_ERR_BAD_COUNT if it has fewer blocks.
 */
int shmuring_claim_block_lsn(struct shmuring_communicator *communicator, shmuring_ref claim, uint32_t i,
			     uint64_t *lsn);

/*
 * Enters Copying, in which alone buffers are touched; _deliver and _take_image do it themselves. From here to
 * _suspend, or to the answer, do no I/O, take no lock and allocate nothing: whoever cancels may be waiting for you.
 */
int shmuring_claim_begin_copy(struct shmuring_communicator *communicator, shmuring_ref claim);

/*
 * Copies a page of `bytes` (at most a block) into the buffer of block `i` of a read. SHMURING_ERR_BAD_BUFFER if there
 * is no such buffer or the page is longer, SHMURING_ERR_BAD_REQUEST if the request takes no pages. `page` does not
 * lie in a pool.
 */
int shmuring_claim_deliver(struct shmuring_communicator *communicator, shmuring_ref claim, uint32_t i,
			   const void *page, size_t bytes);

/* Copies `bytes` (at most a block) of the image of block `i` of a write to `page`. Errors as of _deliver. */
int shmuring_claim_take_image(struct shmuring_communicator *communicator, shmuring_ref claim, uint32_t i,
			      void *page, size_t bytes);

/*
 * Leaves Copying: images are taken, or a part is delivered, and something slow comes next. 0 if it was not in
 * Copying.
 */
int shmuring_claim_suspend(struct shmuring_communicator *communicator, shmuring_ref claim);

/*
 * Answers: `value` by opcode (see shmuring.h), `lsn` as of which the answer holds, or 0. Pages come first, by
 * _deliver. The effect of a mutation is there before this, and nothing that conflicts with it is begun before this
 * returns.
 */
int shmuring_claim_complete(struct shmuring_communicator *communicator, shmuring_ref claim, uint64_t value,
			    uint64_t lsn);

/*
 * Answers that it failed, with a positive errno below 4096 (SHMURING_ERR_BAD_REQUEST for another) after so many
 * `attempts`; `value` is the index of the block that failed, or 0.
 */
int shmuring_claim_fail(struct shmuring_communicator *communicator, shmuring_ref claim, int error,
			uint64_t value, uint16_t attempts);

/* Answers that nobody will: fails with ECANCELED, and counts as dropped. */
int shmuring_claim_drop(struct shmuring_communicator *communicator, shmuring_ref claim);

/*
 * Before the answer to a mutation that changes a size: what it comes to is not certain, so that success leaves a miss
 * too (shmuring_communicator_keep_sizes). Does nothing to another claim, nor where sizes are not kept. Returns 0.
 */
int shmuring_claim_forget_size(struct shmuring_communicator *communicator, shmuring_ref claim);

/* ------------------------------------------------------------------------- The communicator of shmuring */

/* A running communicator with its threads. Opaque. */
struct shmuring_host;

/* Levels of the log. */
#define SHMURING_LOG_ERROR 1
#define SHMURING_LOG_WARN 2
#define SHMURING_LOG_INFO 3
#define SHMURING_LOG_DEBUG 4

/* Bytes of a log record's texts, the closing zero included; longer ones are cut. */
#define SHMURING_LOG_TARGET 64
#define SHMURING_LOG_TEXT 936

/* A line of the log. Both texts are UTF-8 and end with a zero. */
struct shmuring_log_record {
	uint32_t level;    /* SHMURING_LOG_* */
	uint32_t reserved; /* 0 */
	uint64_t dropped;  /* lines lost before this one, since the last that was not */
	uint64_t when;     /* CLOCK_REALTIME, ns */
	char target[SHMURING_LOG_TARGET]; /* which part of the communicator says it */
	char text[SHMURING_LOG_TEXT];
};

/*
 * How to serve. Set all of it to zero, then `size`, one of the regions, and `service`: zero is the default everywhere
 * else.
 */
struct shmuring_host_config {
	uint64_t size;                  /* sizeof(struct shmuring_host_config) */
	struct shmuring_region *region; /* the region to serve: must outlive the host; or */
	const char *region_path;        /* where to attach to it */
	/*
	 * As of `shmuring serve`: "store:DIR", "datadir:DIR", and in a library that was built with those features
	 * "grpc:SERVERS" and "standby:CONNINFO".
	 */
	const char *service;
	/*
	 * Called for each line of the log, by threads of the library, several at once: it must be safe for that, must
	 * not block for long, and must neither longjmp nor call shmuring_host_*. NULL: lines wait for
	 * shmuring_host_next_log.
	 */
	void (*log)(void *user, const struct shmuring_log_record *record);
	void *user;              /* for `log` */
	uint32_t log_level;      /* the last level that is logged; 0: SHMURING_LOG_INFO */
	uint32_t threads;        /* of the runtime; 0: one a cpu */
	uint32_t grace_ms;       /* how long to wait for unfinished requests at the stop; 0: 30000 */
	uint32_t gather;         /* collect so many requests, at most 64, before they are handed on; 0: do not wait */
	uint32_t gather_us;      /* or for so many microseconds; 0: 50 */
	uint32_t forget_every_s; /* seconds between two rounds of forgetting old pages; 0: 60 */
	uint64_t memtable_bytes; /* writes that a store gathers in memory; 0: 64 MiB */
	uint64_t history_bytes;  /* WAL whose reads a store keeps pages for; 0: 1 GiB */
	/* Caches: no larger than the memory of the machine. */
	uint64_t cache_bytes;    /* pages kept in memory; 0: 64 MiB for a store, none for a datadir; UINT64_MAX: none */
	uint64_t prefetch_bytes; /* prefetched pages that wait for a reader; 0: 16 MiB; UINT64_MAX: none */
	/*
	 * What the page cache evicts goes to this file of so many bytes, which is made (mode 0600) or emptied at the
	 * start. NULL, and 0: it goes nowhere.
	 */
	const char *cache_file;
	uint64_t cache_file_bytes;
};

/*
 * Starts the communicator: opens the page service, takes the role of the region, serves. Stores a handle in *out.
 *
 * Returns 0 when it serves; SHMURING_ERR_ROLE_HELD while a living communicator holds the role;
 * SHMURING_ERR_BAD_REQUEST for a configuration that makes no sense, or says more than this version of the library
 * knows; SHMURING_ERR_BAD_MEMORY for a null pointer; -EBUSY for a cache file that another process uses; -ENOENT for a
 * region that is not there, and for a store that would have to be made beside a region that was served before; or what
 * opening the page service or a system call said. `err`, unless NULL, gets the reason in words. On an error *out is as
 * it was and nothing runs.
 *
 * Blocks until the page service is open, which may read a long journal; signals are handled meanwhile. Everything
 * runs in threads of the library, in which all signals are blocked, and it installs no handler. Nothing of `config`
 * is used after the return but `region`, `log` and `user`. There may be several in a process, each with a region of its
 * own. -ENOMEM if there is no memory for the handle; where there is none for what it opens, or later for what its
 * threads do, the process ends, as `shmuring serve` does.
 */
int shmuring_host_start(const struct shmuring_host_config *config, struct shmuring_host **out,
			struct shmuring_error *err);

/*
 * Asks the communicator to answer what has been submitted and to end, and waits for that for up to `timeout_ms`.
 *
 * Returns 0 when it has ended, everything is answered and durable; a positive number of requests that were not
 * answered within the grace period: the role then stays with the process until that ends, the region's handle must
 * never be closed, and a successor answers them; -ETIMEDOUT while it has not ended: call again (PostgreSQL: with
 * CHECK_FOR_INTERRUPTS in between); another error if it has ended and the last sync failed, or if a thread of it had
 * died. The answer stays the same after the end. If a thread then hangs in a call of the system, on a disk say, the
 * region's handle stays in use until the process ends (SHMURING_ERR_IN_USE). Any thread; signals do not end the wait.
 */
int shmuring_host_stop(struct shmuring_host *host, uint64_t timeout_ms, struct shmuring_error *err);

/*
 * Frees the handle; `log` is not called any more when this returns, nor when _start has failed. Returns 0; -EBUSY until
 * shmuring_host_stop has said that it has ended.
 */
int shmuring_host_free(struct shmuring_host *host);

/* 1 while it serves; 0 once it was told to stop or has died: then end the process, or stop, free and start again. */
int shmuring_host_is_running(const struct shmuring_host *host);

/* Number of this term of the role, for logs; 0 for NULL. */
uint32_t shmuring_host_epoch(const struct shmuring_host *host);

/* Requests that a dead communicator had claimed and this one finishes; 0 for NULL. */
uint64_t shmuring_host_inherited(const struct shmuring_host *host);

/*
 * Tells what you hear of the page servers' ingest elsewhere than the host does: that the server of shard `shard` has
 * received and ingested WAL up to `lsn`, as it says in its feedback to a WAL sender. Reads that wait for WAL which is
 * there by now are then tried at once, in place of a few at a time. Worth it for page servers that do not tell the host
 * themselves (shmuring's do); call it as often as you hear.
 *
 * It is a hint. What is too high, or of a server that was replaced, has reads sent that wait at the server, each with
 * those of its own LSN alone: only what a server has answered says that no wait is possible. What is lower than before
 * is ignored. Page services that never wait for WAL ignore all of it.
 *
 * Returns 0, also after the host was stopped, when nobody listens; SHMURING_ERR_BAD_REQUEST if the service has no such
 * shard (all but "grpc" have one, shard 0). Any thread; does not allocate, waits for a lock that is held for moments
 * alone, and makes at most one system call.
 */
int shmuring_host_feedback(const struct shmuring_host *host, uint32_t shard, uint64_t lsn);

/*
 * Takes the oldest line out of the log, for embedders that may only log from a thread of their own.
 *
 * Returns 1 with *record filled; 0 if there is none. The log holds 1024 lines: of more, the newest are lost, and
 * counted. Any thread; does not block. Lines can still be taken after the stop.
 */
int shmuring_host_next_log(struct shmuring_host *host, struct shmuring_log_record *record);

/*
 * A descriptor that polls readable while lines wait: for poll(2), epoll or WaitLatchOrSocket. It stays the library's,
 * is closed by shmuring_host_free, and is not to be read from. With a `log` callback it never is readable.
 */
int shmuring_host_log_fd(const struct shmuring_host *host);

SHMURING_SIZE_(shmuring_claim, 72);
SHMURING_AT_(shmuring_claim, ref, 0);
SHMURING_AT_(shmuring_claim, lsn, 8);
SHMURING_AT_(shmuring_claim, spc_oid, 16);
SHMURING_AT_(shmuring_claim, db_oid, 20);
SHMURING_AT_(shmuring_claim, rel_number, 24);
SHMURING_AT_(shmuring_claim, block, 28);
SHMURING_AT_(shmuring_claim, arg, 32);
SHMURING_AT_(shmuring_claim, opcode, 36);
SHMURING_AT_(shmuring_claim, flags, 37);
SHMURING_AT_(shmuring_claim, fork, 38);
SHMURING_AT_(shmuring_claim, count, 39);
SHMURING_AT_(shmuring_claim, pool, 40);
SHMURING_AT_(shmuring_claim, claim_flags, 42);
SHMURING_AT_(shmuring_claim, reserved, 44);
SHMURING_AT_(shmuring_claim, deadline, 48);
SHMURING_AT_(shmuring_claim, request_lsn, 56);
SHMURING_AT_(shmuring_claim, claim_seq, 64);

SHMURING_SIZE_(shmuring_log_record, 1024);
SHMURING_AT_(shmuring_log_record, level, 0);
SHMURING_AT_(shmuring_log_record, reserved, 4);
SHMURING_AT_(shmuring_log_record, dropped, 8);
SHMURING_AT_(shmuring_log_record, when, 16);
SHMURING_AT_(shmuring_log_record, target, 24);
SHMURING_AT_(shmuring_log_record, text, 88);

SHMURING_SIZE_(shmuring_host_config, 120);
SHMURING_AT_(shmuring_host_config, size, 0);
SHMURING_AT_(shmuring_host_config, region, 8);
SHMURING_AT_(shmuring_host_config, region_path, 16);
SHMURING_AT_(shmuring_host_config, service, 24);
SHMURING_AT_(shmuring_host_config, log, 32);
SHMURING_AT_(shmuring_host_config, user, 40);
SHMURING_AT_(shmuring_host_config, log_level, 48);
SHMURING_AT_(shmuring_host_config, threads, 52);
SHMURING_AT_(shmuring_host_config, grace_ms, 56);
SHMURING_AT_(shmuring_host_config, gather, 60);
SHMURING_AT_(shmuring_host_config, gather_us, 64);
SHMURING_AT_(shmuring_host_config, forget_every_s, 68);
SHMURING_AT_(shmuring_host_config, memtable_bytes, 72);
SHMURING_AT_(shmuring_host_config, history_bytes, 80);
SHMURING_AT_(shmuring_host_config, cache_bytes, 88);
SHMURING_AT_(shmuring_host_config, prefetch_bytes, 96);
SHMURING_AT_(shmuring_host_config, cache_file, 104);
SHMURING_AT_(shmuring_host_config, cache_file_bytes, 112);

#ifdef __cplusplus
}
#endif

#endif /* SHMURING_HOST_H */
