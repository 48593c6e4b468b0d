/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shmuring/types.h: numbers, and the structures that calls take and give. Part of shmuring.h, which includes it.
 *
 * MAINTAINERS: every number repeats one of the library (src/layout.rs, src/request.rs, src/slot.rs, src/stats.rs,
 * src/error.rs); the structures are those of ffi/src/api.rs. The tests of ffi/ compare both ways; change both sides
 * together. Numbers are append-only.
 */
#ifndef SHMURING_TYPES_H
#define SHMURING_TYPES_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "shmuring: the completion word is the low half of a 64-bit word, which needs a little-endian machine"
#endif
#if UINTPTR_MAX != UINT64_MAX
#error "shmuring: needs a 64-bit machine"
#endif

#define SHMURING_ALIGNED_(n) __attribute__((__aligned__(n)))
/* Without gaps, and aligned to 4 so that request and result fit the slot's first line. */
#define SHMURING_PACKED4_ __attribute__((__packed__, __aligned__(4)))

/* C99 has no _Static_assert: there, an array of -1 ints is the error. */
#if defined(__cplusplus)
#define SHMURING_ASSERT_(condition, text) static_assert(condition, text)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define SHMURING_ASSERT_(condition, text) _Static_assert(condition, text)
#else
#define SHMURING_ASSERT_(condition, text) extern int shmuring_assert_[(condition) ? 1 : -1]
#endif
#define SHMURING_SIZE_(type, bytes) SHMURING_ASSERT_(sizeof(struct type) == (bytes), "size of " #type)
#define SHMURING_AT_(type, field, bytes) \
	SHMURING_ASSERT_(offsetof(struct type, field) == (bytes), "offset of " #type "." #field)

/* ------------------------------------------------------------------------------------------------ Versions */

/* Version of this header. */
#define SHMURING_VERSION_MAJOR 0
#define SHMURING_VERSION_MINOR 1
#define SHMURING_VERSION_PATCH 0
/* The same for comparisons: major * 1000000 + minor * 1000 + patch. */
#define SHMURING_VERSION_NUMBER \
	(SHMURING_VERSION_MAJOR * 1000000 + SHMURING_VERSION_MINOR * 1000 + SHMURING_VERSION_PATCH)

/* Version of what lies in a region. Raised whenever the meaning of a byte changes. */
#define SHMURING_ABI_VERSION 3

/* -------------------------------------------------------------------------------------------------- Errors */

/*
 * What calls return, negative. Several share an errno, so use them in comparisons, not as the labels of one switch.
 */
#define SHMURING_ERR_TOO_SHORT (-ENODATA)              /* the region is shorter than its header says */
#define SHMURING_ERR_WRONG_MAGIC (-EMEDIUMTYPE)        /* not a region, or not finished by its creator */
#define SHMURING_ERR_WRONG_ABI (-EPROTONOSUPPORT)      /* made by another ABI version */
#define SHMURING_ERR_WRONG_LAYOUT (-EPROTO)            /* made by a build with another layout */
#define SHMURING_ERR_UNKNOWN_FEATURE (-EPROTONOSUPPORT) /* needs a feature that this build does not know */
#define SHMURING_ERR_BAD_GEOMETRY (-EBADMSG)           /* impossible sizes or offsets */
#define SHMURING_ERR_FOREIGN_CLOCK (-EXDEV)            /* made in another time namespace */
#define SHMURING_ERR_WRONG_LOCK_FILE (-ENOLCK)         /* not the lock file that the region was made with */
#define SHMURING_ERR_BAD_MEMORY (-EFAULT)              /* a pointer is NULL, or memory misaligned or too small */
#define SHMURING_ERR_EXISTS (-EEXIST)                  /* another region has that name */
#define SHMURING_ERR_BAD_SLOT (-EINVAL)                /* slot outside the region or the caller's range */
#define SHMURING_ERR_BAD_POOL (-EINVAL)                /* pool not registered, or otherwise elsewhere */
#define SHMURING_ERR_BAD_BUFFER (-EINVAL)              /* buffer out of range, not owned, or named twice */
#define SHMURING_ERR_BAD_COUNT (-EINVAL)               /* number of blocks out of range */
#define SHMURING_ERR_BAD_OPCODE (-EINVAL)              /* unknown opcode */
#define SHMURING_ERR_BAD_REQUEST (-EINVAL)             /* unknown flag, reserved field, or argument not taken */
#define SHMURING_ERR_SLOT_BUSY (-EBUSY)                /* the slot is in use */
#define SHMURING_ERR_NOT_FILLING (-EBUSY)              /* the slot is not being filled */
#define SHMURING_ERR_STALE (-ESTALE)                   /* the reference is of an old generation */
#define SHMURING_ERR_NOT_COMPLETED (-EBUSY)            /* the request is not finished */
#define SHMURING_ERR_NO_FREE_SLOT (-EAGAIN)            /* no slot is free: finish a request first */
#define SHMURING_ERR_NO_FREE_BUFFER (-ENOBUFS)         /* no bounce buffer is free */
#define SHMURING_ERR_TOO_MANY (-E2BIG)                 /* too many words for one wait */
#define SHMURING_ERR_WRONG_PROCESS (-EPERM)            /* the handle was carried over a fork */
#define SHMURING_ERR_OWNER_ALIVE (-EBUSY)              /* another living process owns these slots */
#define SHMURING_ERR_ROLE_HELD (-EBUSY)                /* a living communicator holds the role */
#define SHMURING_ERR_LIFE_HELD (-EBUSY)                /* a living server holds the region */
#define SHMURING_ERR_TIMED_OUT (-ETIMEDOUT)            /* the wait timed out */
#define SHMURING_ERR_INTERRUPTED (-EINTR)              /* a signal, or the interrupt word changed */
#define SHMURING_ERR_COMMUNICATOR_GONE (-EOWNERDEAD)   /* the wait timed out; there is no communicator */
#define SHMURING_ERR_IN_PROGRESS (-EINPROGRESS)        /* a claimed mutation cannot be cancelled */
#define SHMURING_ERR_ALREADY_COMPLETED (-EALREADY)     /* complete before it could be cancelled */
/* Of the C interface alone. */
#define SHMURING_ERR_WRONG_THREAD (-EPERM)             /* the handle is another thread's */
#define SHMURING_ERR_DETACHED (-EBADF)                 /* the handle was detached */
#define SHMURING_ERR_IN_USE (-EBUSY)                   /* backends are attached by way of this region handle */
#define SHMURING_ERR_BUG (-ENOTRECOVERABLE)            /* a bug was caught; the handle does nothing any more */

/* An error in words. */
struct shmuring_error {
	int code;       /* what the call returned */
	char text[252]; /* a sentence, ended by a 0 byte */
};

/* ------------------------------------------------------------------------------------------------- Regions */

/* The first eight bytes of a finished region: "shmuring". */
#define SHMURING_MAGIC UINT64_C(0x676e6972756d6873)
/* Features that a region can require of whoever attaches: none yet. */
#define SHMURING_FEATURES 0
/* Most request slots of a region. */
#define SHMURING_MAX_SLOTS 16777214
/* Most buffer pools; 0 is the bounce pool of the region. */
#define SHMURING_MAX_POOLS 16
#define SHMURING_MAX_SHARDS 64 /* that a region tells of */
#define SHMURING_POOL_BOUNCE 0
/* Bytes of a block unless the creator says otherwise. */
#define SHMURING_DEFAULT_BLOCK_SIZE 8192
/* Buckets of a latency histogram: below 256 ns, then one for each doubling. */
#define SHMURING_BUCKETS 24

/* Tables of a region whose sizes are not said: 8 MiB of last-written LSNs, and so many relation sizes. */
#define SHMURING_DEFAULT_WRITTEN_BUCKETS 131072
#define SHMURING_DEFAULT_REL_SIZES 4096
/* A table that the region is to be without. */
#define SHMURING_NONE UINT32_MAX

/* Sizes of a region to be made. Without a last-written table every write makes every page look new. */
struct shmuring_region_options {
	uint32_t slots;           /* request slots, of all backends together */
	uint32_t bounce_per_slot; /* bounce buffers of one block for each slot, 0 to 1024 */
	uint32_t block_size;      /* bytes of a block, a power of two from 512 to 65536 */
	uint32_t written_buckets; /* of 64 bytes, 7 pages each, at most 2^26; 0: the default; SHMURING_NONE */
	uint32_t rel_sizes;       /* of 32 bytes, at most 2^24; 0: the default; SHMURING_NONE */
	uint32_t reserved[3];     /* 0 */
};

/* What there is to know of a region. */
struct shmuring_region_info {
	uint32_t slots;
	uint32_t bounce_per_slot;
	uint32_t block_size;
	uint32_t life;          /* number of the server life that it serves */
	uint64_t bytes;         /* of the region */
	uint64_t id[2];         /* random; tells this region from every other */
	uint64_t features;      /* SHMURING_FEATURES of the region */
	uint32_t epoch;         /* term of the present communicator, or of the last */
	uint32_t communicator;  /* 1: a living process holds the role */
	uint32_t is_read_only;  /* 1: shmuring_region_observe */
	uint32_t reserved[5];   /* 0 */
};

/*
 * The completion word of a slot. Its low half, which is the futex, holds state, waiter bit and generation; its high
 * half the epoch of the communicator that claimed the request.
 */
#define SHMURING_STATE_IDLE 0       /* free; the owner may fill it */
#define SHMURING_STATE_FILLING 1    /* the owner writes the request */
#define SHMURING_STATE_SUBMITTED 2  /* waits for a communicator */
#define SHMURING_STATE_PROCESSING 3 /* claimed; the buffers are not touched */
#define SHMURING_STATE_COPYING 4    /* claimed; the buffers may be touched */
#define SHMURING_STATE_COMPLETED 5  /* the result is there; the owner reads it */
#define SHMURING_STATE_ABANDONED 6  /* cancelled while claimed */
#define SHMURING_STATE_WITHDRAWN 7  /* cancelled before it was claimed */

#define SHMURING_WORD_STATE 0x0f         /* mask of the state */
#define SHMURING_WORD_WAITER 0x10        /* someone sleeps on the word */
#define SHMURING_WORD_GENERATION_SHIFT 8 /* 24 bits of generation from here on */
#define SHMURING_WORD_EPOCH_SHIFT 32     /* 32 bits of epoch from here on */

/* ------------------------------------------------------------------------------------------------ Requests */

/*
 * What a request asks for. Append-only. Where no value is named, that of a result is the blocks of a read (as struct
 * shmuring_completion says) or a prefetch, and means nothing for all else: a communicator of your own gives 0.
 */
#define SHMURING_OP_NOP 0             /* nothing; completes with 0 */
#define SHMURING_OP_GET_PAGE 1        /* read 1 to 32 consecutive blocks */
#define SHMURING_OP_PREFETCH 2        /* bring 1 to 32 consecutive blocks near; no buffer */
#define SHMURING_OP_REL_SIZE 3        /* value: blocks of a relation fork */
#define SHMURING_OP_REL_EXISTS 4      /* value: 1 or 0 */
#define SHMURING_OP_DB_SIZE 5         /* value: bytes of a database */
#define SHMURING_OP_READ_SLRU 6       /* read an SLRU segment; value: its bytes */
#define SHMURING_OP_WRITE_PAGE 7      /* write 1 to 32 consecutive blocks that exist */
#define SHMURING_OP_EXTEND 8          /* write a block, and grow the relation to hold it */
#define SHMURING_OP_ZERO_EXTEND 9     /* grow the relation by zero blocks */
#define SHMURING_OP_CREATE 10         /* make a relation fork of 0 blocks */
#define SHMURING_OP_TRUNCATE 11       /* cut a relation fork down */
#define SHMURING_OP_UNLINK 12         /* remove a relation fork */
#define SHMURING_OP_UPDATE_REL_SIZE 13 /* the relation now has so many blocks, written by other means */
#define SHMURING_OP_GET_PAGE_AT 14    /* read 1 to 32 blocks as of exactly one LSN, past every cache */
#define SHMURING_OP_SYNC 15           /* make what completed before this was submitted durable */

/* Who waits for a request: decides its turn, never its result. */
#define SHMURING_CLASS_DEMAND 0     /* a query waits for it */
#define SHMURING_CLASS_PREFETCH 1   /* someone will probably want it soon */
#define SHMURING_CLASS_BACKGROUND 2 /* vacuum, backup, checks */

/* Bits of shmuring_raw_request.flags; the two lowest hold the class. */
#define SHMURING_FLAG_CLASS 0x03         /* mask of the class */
#define SHMURING_FLAG_ALLOW_MISSING 0x04 /* a missing relation is an answer: SHMURING_MISSING */
#define SHMURING_FLAG_DEADLINE 0x08      /* extra.deadline is valid */
#define SHMURING_FLAG_REQUEST_LSN 0x10   /* extra.request_lsn is valid */
#define SHMURING_FLAG_BLOCK_LSNS 0x20    /* vector.lsns is valid */
#define SHMURING_FLAG_KNOWN 0x3f         /* all of them */

/* Value of a rel_size with SHMURING_FLAG_ALLOW_MISSING when there is no such relation. */
#define SHMURING_MISSING UINT64_MAX
/* Blocks that one request can carry. */
#define SHMURING_MAX_BLOCKS 32

/* A fork of a relation, as PostgreSQL names its files. */
struct shmuring_rel {
	uint32_t spc_oid;    /* tablespace */
	uint32_t db_oid;     /* database; 0 for shared relations */
	uint32_t rel_number; /* relfilenode */
	uint8_t fork;        /* 0 main, 1 free space map, 2 visibility map, 3 init */
	uint8_t reserved[3]; /* 0 */
};

/*
 * A request as the caller states it: shmuring_prep_* fill one in, shmuring_set_* add what is rare. The first 36 bytes
 * are those of shmuring_raw_request.
 */
struct shmuring_request {
	uint64_t lsn; /* reads: not_modified_since; mutations: the LSN of the change */
	uint32_t spc_oid;
	uint32_t db_oid;
	uint32_t rel_number;
	uint32_t block; /* first block, segment number, or new size in blocks */
	uint32_t arg;   /* blocks of a zero_extend; else 0 */
	uint8_t opcode; /* SHMURING_OP_* */
	uint8_t flags;  /* SHMURING_FLAG_* and SHMURING_CLASS_* */
	uint8_t fork;
	uint8_t count;      /* blocks; 0 where the opcode takes none */
	uint16_t pool;      /* pool of `buffers`; SHMURING_POOL_BOUNCE: the library picks bounce buffers */
	uint16_t reserved;  /* 0 */
	uint32_t reserved2; /* 0 */
	uint64_t deadline;  /* with SHMURING_FLAG_DEADLINE: CLOCK_MONOTONIC, ns */
	uint64_t request_lsn;       /* with SHMURING_FLAG_REQUEST_LSN: read as of it */
	const uint64_t *block_lsns; /* with SHMURING_FLAG_BLOCK_LSNS: not_modified_since, one a block; else NULL */
	const uint32_t *buffers;    /* one index into `pool` a block; NULL with bounce buffers */
	const void *image;          /* writes by bounce buffer: count blocks, copied at once; else NULL */
	uint64_t reserved3[2];      /* 0 */
};

/*
 * A request in flight: slot in the low half, generation of the slot in the high half. Below 0 it is none, but the error
 * of the call that should have given one; calls that are handed such a value refuse it. Good until the result was taken
 * or the request cancelled; then SHMURING_ERR_STALE.
 */
typedef int64_t shmuring_ref;

/* How long a wait may last, and what else ends it. */
struct shmuring_wait {
	uint64_t until;                /* CLOCK_MONOTONIC, ns; UINT64_MAX: no limit */
	const volatile int *interrupt; /* ends the wait once it is not 0 (InterruptPending of PostgreSQL); or NULL */
	uint64_t reserved;             /* 0 */
};
/* Most requests of one shmuring_wait_any. */
#define SHMURING_MAX_WAIT_ANY 127

/* The size of a relation fork. */
struct shmuring_rel_size {
	uint64_t blocks;     /* its blocks; SHMURING_MISSING: there is no such fork */
	uint64_t lsn;        /* of the change that made it so, or as of which it was read */
	uint32_t is_changed; /* 1: a change made it so, of which a page server that lags has not heard */
	uint32_t reserved;   /* 0 */
};

/* What a cancel came to; also the fate of a leftover. Append-only. */
#define SHMURING_CANCEL_WITHDRAWN 1 /* never claimed: it did not run */
#define SHMURING_CANCEL_ABANDONED 2 /* claimed: its answer will be dropped */
#define SHMURING_FATE_WITHDRAWN 1   /* a read that did not run */
#define SHMURING_FATE_ABANDONED 2   /* a read whose answer will be dropped */
#define SHMURING_FATE_COMPLETED 3   /* it ran to its end: see `result` */
#define SHMURING_FATE_OWNER_DEAD 4  /* a mutation that did not run and never will */

/* Indexes of shmuring_owner_stats.counters. */
#define SHMURING_OWNER_SUBMITTED 0
#define SHMURING_OWNER_FINISHED 1
#define SHMURING_OWNER_FAILED 2
#define SHMURING_OWNER_CANCELLED 3
#define SHMURING_OWNER_DOORBELL_RINGS 4
#define SHMURING_OWNER_FUTEX_WAITS 5
#define SHMURING_OWNER_PENDING_PUSHES 6
#define SHMURING_OWNER_LEFTOVERS 7
#define SHMURING_OWNER_REL_SIZE_HITS 8
#define SHMURING_OWNER_REL_SIZE_SPARED 9
#define SHMURING_OWNER_REL_SIZE_MISSES 10

/* Indexes of shmuring_role_stats.counters. */
#define SHMURING_ROLE_CLAIMED 0
#define SHMURING_ROLE_STALE_HINTS 1
#define SHMURING_ROLE_STEPPED_OVER 2
#define SHMURING_ROLE_PENDING_HINTS 3
#define SHMURING_ROLE_LOST_HINTS 4
#define SHMURING_ROLE_DAMAGE 5
#define SHMURING_ROLE_PARKS 6
#define SHMURING_ROLE_WAKES 7
#define SHMURING_ROLE_REFUSED 8
#define SHMURING_ROLE_OLD_LIFE 9
#define SHMURING_ROLE_EXPIRED 10
#define SHMURING_ROLE_DROPPED 11
#define SHMURING_ROLE_FREED 12
#define SHMURING_ROLE_TAKE_OVERS 13
#define SHMURING_ROLE_RECLAIMED 14
#define SHMURING_ROLE_BAD_WORDS 15
#define SHMURING_ROLE_FAILED 16
#define SHMURING_ROLE_DEFERRED 17
#define SHMURING_ROLE_BATCHES 18
#define SHMURING_ROLE_UNHINTED 19
#define SHMURING_ROLE_BLOCKED 20
#define SHMURING_ROLE_JOINED 21
#define SHMURING_ROLE_SENT_AGAIN 22
#define SHMURING_ROLE_LSN_TIMEOUTS 23
#define SHMURING_ROLE_CACHE_HITS 24
#define SHMURING_ROLE_PREFETCH_HITS 25
#define SHMURING_ROLE_CACHE_MISSES 26
#define SHMURING_ROLE_COMPARED 27
#define SHMURING_ROLE_DIFFERED 28

SHMURING_SIZE_(shmuring_error, 256);
SHMURING_AT_(shmuring_error, code, 0);
SHMURING_AT_(shmuring_error, text, 4);

SHMURING_SIZE_(shmuring_region_options, 32);
SHMURING_AT_(shmuring_region_options, slots, 0);
SHMURING_AT_(shmuring_region_options, bounce_per_slot, 4);
SHMURING_AT_(shmuring_region_options, block_size, 8);
SHMURING_AT_(shmuring_region_options, written_buckets, 12);
SHMURING_AT_(shmuring_region_options, rel_sizes, 16);
SHMURING_AT_(shmuring_region_options, reserved, 20);

SHMURING_SIZE_(shmuring_region_info, 80);
SHMURING_AT_(shmuring_region_info, slots, 0);
SHMURING_AT_(shmuring_region_info, bounce_per_slot, 4);
SHMURING_AT_(shmuring_region_info, block_size, 8);
SHMURING_AT_(shmuring_region_info, life, 12);
SHMURING_AT_(shmuring_region_info, bytes, 16);
SHMURING_AT_(shmuring_region_info, id, 24);
SHMURING_AT_(shmuring_region_info, features, 40);
SHMURING_AT_(shmuring_region_info, epoch, 48);
SHMURING_AT_(shmuring_region_info, communicator, 52);
SHMURING_AT_(shmuring_region_info, is_read_only, 56);
SHMURING_AT_(shmuring_region_info, reserved, 60);

SHMURING_SIZE_(shmuring_rel, 16);
SHMURING_AT_(shmuring_rel, spc_oid, 0);
SHMURING_AT_(shmuring_rel, db_oid, 4);
SHMURING_AT_(shmuring_rel, rel_number, 8);
SHMURING_AT_(shmuring_rel, fork, 12);
SHMURING_AT_(shmuring_rel, reserved, 13);

SHMURING_SIZE_(shmuring_request, 96);
SHMURING_AT_(shmuring_request, lsn, 0);
SHMURING_AT_(shmuring_request, spc_oid, 8);
SHMURING_AT_(shmuring_request, db_oid, 12);
SHMURING_AT_(shmuring_request, rel_number, 16);
SHMURING_AT_(shmuring_request, block, 20);
SHMURING_AT_(shmuring_request, arg, 24);
SHMURING_AT_(shmuring_request, opcode, 28);
SHMURING_AT_(shmuring_request, flags, 29);
SHMURING_AT_(shmuring_request, fork, 30);
SHMURING_AT_(shmuring_request, count, 31);
SHMURING_AT_(shmuring_request, pool, 32);
SHMURING_AT_(shmuring_request, reserved, 34);
SHMURING_AT_(shmuring_request, reserved2, 36);
SHMURING_AT_(shmuring_request, deadline, 40);
SHMURING_AT_(shmuring_request, request_lsn, 48);
SHMURING_AT_(shmuring_request, block_lsns, 56);
SHMURING_AT_(shmuring_request, buffers, 64);
SHMURING_AT_(shmuring_request, image, 72);
SHMURING_AT_(shmuring_request, reserved3, 80);

SHMURING_SIZE_(shmuring_wait, 24);
SHMURING_AT_(shmuring_wait, until, 0);
SHMURING_AT_(shmuring_wait, interrupt, 8);
SHMURING_AT_(shmuring_wait, reserved, 16);

SHMURING_SIZE_(shmuring_rel_size, 24);
SHMURING_AT_(shmuring_rel_size, blocks, 0);
SHMURING_AT_(shmuring_rel_size, lsn, 8);
SHMURING_AT_(shmuring_rel_size, is_changed, 16);
SHMURING_AT_(shmuring_rel_size, reserved, 20);

#endif /* SHMURING_TYPES_H */
