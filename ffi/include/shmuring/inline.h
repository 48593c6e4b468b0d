/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shmuring/inline.h: what is compiled into the caller. Part of shmuring.h, which includes it.
 *
 * The library exports a function of the same name and meaning for each of these, for languages that cannot compile C.
 *
 * MAINTAINERS: here slot words are looked at, and nothing in a region is written: whoever fills a slot must know which
 * bounce buffers are free, and submitting has orderings that are modelled in Rust alone (I1 of docs/design.md). The
 * __atomic builtins serve C99 and C++ as well, which have no _Atomic. ffi/src/inline.rs says the same in Rust.
 */
#ifndef SHMURING_INLINE_H
#define SHMURING_INLINE_H

#include <string.h>

#include "layout.h"

#ifdef __cplusplus
extern "C" {
#endif

struct shmuring_backend;

/* The first bytes of a shmuring_backend. For the functions below alone. */
struct shmuring_backend_head {
	const uint64_t *limit; /* slots of the range; 0 in a forked child and once it was detached */
	const struct shmuring_slot *slots; /* the first of the range */
	uint32_t first;
	uint32_t count;
};

SHMURING_SIZE_(shmuring_backend_head, 24);
SHMURING_AT_(shmuring_backend_head, limit, 0);
SHMURING_AT_(shmuring_backend_head, slots, 8);
SHMURING_AT_(shmuring_backend_head, first, 16);
SHMURING_AT_(shmuring_backend_head, count, 20);

/* What shmuring_poll and shmuring_state cannot answer by a look at a word. */
int shmuring_poll_rare(const struct shmuring_backend *b, shmuring_ref ref);

/* The first bytes of the handle. */
static inline const struct shmuring_backend_head *shmuring_head_(const struct shmuring_backend *b)
{
	return (const struct shmuring_backend_head *)(const void *)b;
}

/*
 * Whether a request is complete.
 *
 * Returns 1: finish it; 0: not yet. SHMURING_ERR_STALE, _NOT_COMPLETED if it was not submitted, _BAD_SLOT,
 * _WRONG_PROCESS, _DETACHED. [fast], without a system call. `b` is not NULL, and the thread is the handle's: where a
 * look at the word is enough, neither is checked.
 */
static inline int shmuring_poll(const struct shmuring_backend *b, shmuring_ref ref)
{
	const struct shmuring_backend_head *head = shmuring_head_(b);
	uint32_t index = (uint32_t)ref - head->first;
	uint64_t state;

	if (index >= *head->limit)
		return shmuring_poll_rare(b, ref);
	/* SL_2: whoever sees Completed sees result and pages. Waiter and epoch say nothing here. */
	state = __atomic_load_n(&head->slots[index].word, __ATOMIC_ACQUIRE) & (UINT32_MAX ^ SHMURING_WORD_WAITER);
	/* What is left if the generation is the reference's, whose slot has no bits up there. */
	state ^= (uint64_t)ref >> (32 - SHMURING_WORD_GENERATION_SHIFT);
	if (state == SHMURING_STATE_COMPLETED)
		return 1;
	if (state >= SHMURING_STATE_SUBMITTED && state <= SHMURING_STATE_COPYING)
		return 0;
	return shmuring_poll_rare(b, ref);
}

/*
 * State of a slot of the range, SHMURING_STATE_*; SHMURING_ERR_BAD_SLOT, _WRONG_PROCESS, _DETACHED. [fast]; `b` is not
 * NULL, and the thread is the handle's, as for shmuring_poll.
 */
static inline int shmuring_state(const struct shmuring_backend *b, uint32_t number)
{
	const struct shmuring_backend_head *head = shmuring_head_(b);
	uint32_t index = number - head->first;

	if (index >= *head->limit)
		return shmuring_poll_rare(b, (shmuring_ref)number);
	return (int)(__atomic_load_n(&head->slots[index].word, __ATOMIC_ACQUIRE) & SHMURING_WORD_STATE);
}

/* Slot of a reference. [pure] */
static inline uint32_t shmuring_ref_slot(shmuring_ref ref)
{
	return (uint32_t)ref;
}

/* Generation of a reference. [pure] */
static inline uint32_t shmuring_ref_generation(shmuring_ref ref)
{
	return (uint32_t)((uint64_t)ref >> 32);
}

/* What a relation is named by. [pure] */
static inline struct shmuring_rel shmuring_rel_of(uint32_t spc_oid, uint32_t db_oid, uint32_t rel_number, uint8_t fork)
{
	struct shmuring_rel rel;

	memset(&rel, 0, sizeof rel);
	rel.spc_oid = spc_oid;
	rel.db_oid = db_oid;
	rel.rel_number = rel_number;
	rel.fork = fork;
	return rel;
}

/*
 * shmuring_prep_* - state a request; *r is overwritten. What is wrong with the numbers is told by shmuring_fill. In
 * all, `lsn` of a read is its not_modified_since, that of a mutation the LSN of the change; blocks are consecutive.
 * `r` is not NULL, which nothing checks; so too for shmuring_set_*. [pure]
 */

/* Any request; the fields that its opcode takes may be set afterwards. */
static inline void shmuring_prep(struct shmuring_request *r, uint8_t opcode, struct shmuring_rel rel, uint64_t lsn)
{
	memset(r, 0, sizeof *r);
	r->lsn = lsn;
	r->spc_oid = rel.spc_oid;
	r->db_oid = rel.db_oid;
	r->rel_number = rel.rel_number;
	r->opcode = opcode;
	r->fork = rel.fork;
}

/* Nothing; completes with 0. */
static inline void shmuring_prep_nop(struct shmuring_request *r)
{
	memset(r, 0, sizeof *r);
	r->opcode = SHMURING_OP_NOP;
}

/* Read 1 to 32 blocks into bounce buffers (shmuring_set_buffers: into a pool). */
static inline void shmuring_prep_get_page(struct shmuring_request *r, struct shmuring_rel rel, uint32_t block,
					  uint8_t count, uint64_t lsn)
{
	shmuring_prep(r, SHMURING_OP_GET_PAGE, rel, lsn);
	r->block = block;
	r->count = count;
}

/* Bring 1 to 32 blocks near; of class prefetch. */
static inline void shmuring_prep_prefetch(struct shmuring_request *r, struct shmuring_rel rel, uint32_t block,
					  uint8_t count, uint64_t lsn)
{
	shmuring_prep(r, SHMURING_OP_PREFETCH, rel, lsn);
	r->flags = SHMURING_CLASS_PREFETCH;
	r->block = block;
	r->count = count;
}

/* Blocks of a relation fork; with `allow_missing` the answer may be SHMURING_MISSING. */
static inline void shmuring_prep_rel_size(struct shmuring_request *r, struct shmuring_rel rel, uint64_t lsn,
					  int allow_missing)
{
	shmuring_prep(r, SHMURING_OP_REL_SIZE, rel, lsn);
	r->flags = allow_missing ? SHMURING_FLAG_ALLOW_MISSING : 0;
}

/* Whether a relation fork exists: 1 or 0. */
static inline void shmuring_prep_rel_exists(struct shmuring_request *r, struct shmuring_rel rel, uint64_t lsn)
{
	shmuring_prep(r, SHMURING_OP_REL_EXISTS, rel, lsn);
}

/* Bytes of a database. */
static inline void shmuring_prep_db_size(struct shmuring_request *r, uint32_t db_oid, uint64_t lsn)
{
	shmuring_prep(r, SHMURING_OP_DB_SIZE, shmuring_rel_of(0, db_oid, 0, 0), lsn);
}

/* Read SLRU segment `segment` of kind 0 clog, 1 multixact members or 2 multixact offsets into `count` buffers. */
static inline void shmuring_prep_read_slru(struct shmuring_request *r, uint32_t kind, uint32_t segment, uint8_t count,
					   uint64_t lsn)
{
	shmuring_prep(r, SHMURING_OP_READ_SLRU, shmuring_rel_of(0, 0, kind, 0), lsn);
	r->block = segment;
	r->count = count;
}

/*
 * Write 1 to 32 blocks that exist; `image` is so many blocks, or NULL before shmuring_set_buffers. Without either,
 * shmuring_fill answers SHMURING_ERR_BAD_REQUEST.
 */
static inline void shmuring_prep_write_page(struct shmuring_request *r, struct shmuring_rel rel, uint32_t block,
					    uint8_t count, uint64_t lsn, const void *image)
{
	shmuring_prep(r, SHMURING_OP_WRITE_PAGE, rel, lsn);
	r->block = block;
	r->count = count;
	r->image = image;
}

/* Write block `block` and grow the relation to hold it; `image` as of shmuring_prep_write_page. */
static inline void shmuring_prep_extend(struct shmuring_request *r, struct shmuring_rel rel, uint32_t block,
					uint64_t lsn, const void *image)
{
	shmuring_prep(r, SHMURING_OP_EXTEND, rel, lsn);
	r->block = block;
	r->count = 1;
	r->image = image;
}

/* Grow the relation by `blocks` zero blocks from `block` on. */
static inline void shmuring_prep_zero_extend(struct shmuring_request *r, struct shmuring_rel rel, uint32_t block,
					     uint32_t blocks, uint64_t lsn)
{
	shmuring_prep(r, SHMURING_OP_ZERO_EXTEND, rel, lsn);
	r->block = block;
	r->arg = blocks;
}

/* Make a relation fork of 0 blocks. */
static inline void shmuring_prep_create(struct shmuring_request *r, struct shmuring_rel rel, uint64_t lsn)
{
	shmuring_prep(r, SHMURING_OP_CREATE, rel, lsn);
}

/* Cut a relation fork down to `blocks` blocks. */
static inline void shmuring_prep_truncate(struct shmuring_request *r, struct shmuring_rel rel, uint32_t blocks,
					  uint64_t lsn)
{
	shmuring_prep(r, SHMURING_OP_TRUNCATE, rel, lsn);
	r->block = blocks;
}

/* Remove a relation fork. */
static inline void shmuring_prep_unlink(struct shmuring_request *r, struct shmuring_rel rel, uint64_t lsn)
{
	shmuring_prep(r, SHMURING_OP_UNLINK, rel, lsn);
}

/* Tell that the relation has `blocks` blocks now, written by other means. */
static inline void shmuring_prep_update_rel_size(struct shmuring_request *r, struct shmuring_rel rel, uint32_t blocks,
						 uint64_t lsn)
{
	shmuring_prep(r, SHMURING_OP_UPDATE_REL_SIZE, rel, lsn);
	r->block = blocks;
}

/* Read 1 to 32 blocks as of exactly `request_lsn`, past every cache. */
static inline void shmuring_prep_get_page_at(struct shmuring_request *r, struct shmuring_rel rel, uint32_t block,
					     uint8_t count, uint64_t request_lsn, uint64_t lsn)
{
	shmuring_prep(r, SHMURING_OP_GET_PAGE_AT, rel, lsn);
	r->flags = SHMURING_FLAG_REQUEST_LSN;
	r->request_lsn = request_lsn;
	r->block = block;
	r->count = count;
}

/* Make what completed before this was submitted durable. */
static inline void shmuring_prep_sync(struct shmuring_request *r)
{
	memset(r, 0, sizeof *r);
	r->opcode = SHMURING_OP_SYNC;
}

/* Who waits for it: SHMURING_CLASS_*. [pure] */
static inline void shmuring_set_class(struct shmuring_request *r, uint8_t class_)
{
	r->flags = (uint8_t)((r->flags & ~SHMURING_FLAG_CLASS) | (class_ & SHMURING_FLAG_CLASS));
}

/* When the communicator may give up: CLOCK_MONOTONIC, ns; shmuring_deadline_ms. [pure] */
static inline void shmuring_set_deadline(struct shmuring_request *r, uint64_t deadline)
{
	r->flags |= SHMURING_FLAG_DEADLINE;
	r->deadline = deadline;
}

/* Read as of `request_lsn` in place of the latest. [pure] */
static inline void shmuring_set_request_lsn(struct shmuring_request *r, uint64_t request_lsn)
{
	r->flags |= SHMURING_FLAG_REQUEST_LSN;
	r->request_lsn = request_lsn;
}

/*
 * not_modified_since of each block by itself: an array of count, used until shmuring_fill, which answers
 * SHMURING_ERR_BAD_REQUEST if it is NULL. [pure]
 */
static inline void shmuring_set_block_lsns(struct shmuring_request *r, const uint64_t *block_lsns)
{
	r->flags |= SHMURING_FLAG_BLOCK_LSNS;
	r->block_lsns = block_lsns;
}

/*
 * Buffers of a registered pool, an index a block: an array of count, used until shmuring_fill, which answers
 * SHMURING_ERR_BAD_MEMORY if it is NULL. [pure]
 */
static inline void shmuring_set_buffers(struct shmuring_request *r, uint16_t pool, const uint32_t *buffers)
{
	r->pool = pool;
	r->buffers = buffers;
}

#ifdef __cplusplus
}
#endif

#endif /* SHMURING_INLINE_H */
