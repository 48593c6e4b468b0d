/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shmuring.h: the C interface of shmuring, a lock-free shared-memory I/O ring for databases that run a process per
 * connection.
 *
 * C99, C11 or C++17, of GCC or Clang, on little-endian Linux. Link with -lshmuring.
 *
 * Return values: 0 or more is success; below 0 is an errno, negated, one of SHMURING_ERR_* or what a system call said.
 * Nothing here sets errno, ends the process, unwinds or longjmps. -ENOTRECOVERABLE is a bug in the library that was
 * caught at its edge: give the handle up.
 *
 * MAINTAINERS: every number here repeats one of the library (src/layout.rs, src/request.rs, src/slot.rs, src/stats.rs,
 * src/error.rs). ffi/src/abi.rs and the tests of ffi/ compare both ways; change both sides together.
 */
#ifndef SHMURING_H
#define SHMURING_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "shmuring: the completion word is the low half of a 64-bit word, which needs a little-endian machine"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------ Versions */

/* Version of this header. */
#define SHMURING_VERSION_MAJOR 0
#define SHMURING_VERSION_MINOR 1
#define SHMURING_VERSION_PATCH 0
/* The same for comparisons: major * 1000000 + minor * 1000 + patch. */
#define SHMURING_VERSION_NUMBER \
	(SHMURING_VERSION_MAJOR * 1000000 + SHMURING_VERSION_MINOR * 1000 + SHMURING_VERSION_PATCH)

/* Version of what lies in a region. Raised whenever the meaning of a byte changes. */
#define SHMURING_ABI_VERSION 1

/*
 * The version of the library that was linked, as "major.minor.patch". Static; never NULL. Neither blocks nor
 * allocates.
 */
const char *shmuring_version(void);

/*
 * SHMURING_ABI_VERSION of the library that was linked. If it is not this header's, use neither the structures below
 * nor any region that the library makes. Neither blocks nor allocates.
 */
uint32_t shmuring_abi_version(void);

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
#define SHMURING_ERR_BAD_MEMORY (-EFAULT)              /* memory is null, misaligned or too small */
#define SHMURING_ERR_EXISTS (-EEXIST)                  /* another region has that name */
#define SHMURING_ERR_BAD_SLOT (-EINVAL)                /* slot outside the region or the caller's range */
#define SHMURING_ERR_BAD_POOL (-EINVAL)                /* pool not registered, or otherwise elsewhere */
#define SHMURING_ERR_BAD_BUFFER (-EINVAL)              /* buffer out of range, not owned, or named twice */
#define SHMURING_ERR_BAD_COUNT (-EINVAL)               /* number of blocks out of range */
#define SHMURING_ERR_BAD_OPCODE (-EINVAL)              /* unknown opcode */
#define SHMURING_ERR_BAD_REQUEST (-EINVAL)             /* unknown flag, or argument not taken by the opcode */
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

/*
 * A sentence about `code`. Below 0: what a call of this library returned. Above 0: the errno of a result, told in the
 * words of strerror(3). 0: "success". Any int may be given; never NULL. Copy it before the thread's next call of this
 * or of strerror. Neither blocks nor allocates.
 */
const char *shmuring_strerror(int code);

/* ------------------------------------------------------------------------------------------------ Requests */

/* What a request asks for. Append-only. */
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

/* ---------------------------------------------------------------------------------------------- The region */

/* The first eight bytes of a finished region: "shmuring". */
#define SHMURING_MAGIC UINT64_C(0x676e6972756d6873)
/* Features that a region can require of whoever attaches: none yet. */
#define SHMURING_FEATURES 0
/* Most request slots of a region. */
#define SHMURING_MAX_SLOTS 16777214
/* Most buffer pools; 0 is the bounce pool of the region. */
#define SHMURING_MAX_POOLS 16
#define SHMURING_POOL_BOUNCE 0
/* Bytes of a block unless the creator says otherwise. */
#define SHMURING_DEFAULT_BLOCK_SIZE 8192
/* Buckets of a latency histogram: below 256 ns, then one for each doubling. */
#define SHMURING_BUCKETS 24

/*
 * Bytes that a region takes with `slots` request slots in all, `bounce_per_slot` (0 to 1024) bounce buffers for each,
 * and blocks of `block_size` bytes (a power of two from 512 to 65536); stored in *bytes.
 *
 * Returns 0; SHMURING_ERR_BAD_GEOMETRY for other sizes; SHMURING_ERR_BAD_MEMORY if `bytes` is NULL. On an error *bytes
 * is as it was. Neither blocks nor allocates.
 */
int shmuring_region_size(uint32_t slots, uint32_t bounce_per_slot, uint32_t block_size, uint64_t *bytes);

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

/* Indexes of shmuring_owner_stats.counters. */
#define SHMURING_OWNER_SUBMITTED 0
#define SHMURING_OWNER_FINISHED 1
#define SHMURING_OWNER_FAILED 2
#define SHMURING_OWNER_CANCELLED 3
#define SHMURING_OWNER_DOORBELL_RINGS 4
#define SHMURING_OWNER_FUTEX_WAITS 5
#define SHMURING_OWNER_PENDING_PUSHES 6
#define SHMURING_OWNER_LEFTOVERS 7

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

/* ---------------------------------------------------------------------------------------------- The layout */

/*
 * What lies in a region, for tools and debuggers, and for whoever reads a core. A word that several processes reach is
 * to be loaded and stored atomically (__atomic_load_n and its like): C++ has no _Atomic, so the types here cannot say
 * it. Programs use the functions; nothing here needs to be written by hand.
 */
#define SHMURING_ALIGNED_(n) __attribute__((__aligned__(n)))
/* Without gaps, and aligned to 4 so that request and result fit the slot's first line. */
#define SHMURING_PACKED4_ __attribute__((__packed__, __aligned__(4)))

/* What the creator fixed: written before the magic, never after. */
struct shmuring_config {
	uint32_t abi_version;
	uint32_t slots;
	uint64_t layout_hash;
	uint64_t features;
	uint64_t total_len;
	uint64_t region_id[2];
	uint32_t capacity;       /* cells of the submission ring, a power of two */
	uint32_t bounce_per_slot;
	uint32_t block_size;
	uint32_t time_namespace; /* inode of the creator's; 0: not known */
	uint64_t offsets[6];     /* role stats, pending bitmap, owner stats, slots, cells, bounce buffers */
	uint64_t lock_file;      /* identity of the lock file beside adopted memory; 0: the region's own file */
};

/* One number alone on a pair of cache lines. */
struct SHMURING_ALIGNED_(128) shmuring_alone64 {
	uint64_t value;
};

struct SHMURING_ALIGNED_(128) shmuring_alone32 {
	uint32_t value;
};

/* Who serves. */
struct SHMURING_ALIGNED_(128) shmuring_role {
	uint32_t epoch;     /* number of the present term */
	uint32_t pid;       /* for messages only */
	uint64_t claim_seq; /* last claim number given to a mutation */
	uint64_t since;     /* CLOCK_MONOTONIC, ns */
	uint64_t reserved;
};

/* Which server is served. */
struct SHMURING_ALIGNED_(128) shmuring_life {
	uint32_t life;
	uint32_t pid; /* for messages only */
	uint64_t system_identifier;
};

/* What every process agrees on about registered pools: stride << 32 | count. */
struct SHMURING_ALIGNED_(128) shmuring_pool_check {
	uint64_t stride_and_count[SHMURING_MAX_POOLS];
};

/* The first page of a region. */
struct SHMURING_ALIGNED_(128) shmuring_header {
	uint64_t magic;
	struct shmuring_config config;
	struct shmuring_alone64 tail;     /* next ticket: backends */
	struct shmuring_alone64 head;     /* next ticket to reap: the communicator */
	struct shmuring_alone64 parked;   /* park number and flag: the communicator */
	struct shmuring_alone32 sequence; /* the futex that the communicator sleeps on: backends */
	struct shmuring_alone64 any;      /* raised after a bit of the pending bitmap */
	struct shmuring_role role;
	struct shmuring_life life;
	struct shmuring_pool_check pools;
};

/* Counters of the communicator's role. */
struct SHMURING_ALIGNED_(128) shmuring_role_stats {
	uint64_t counters[32];
	uint64_t service[3][SHMURING_BUCKETS]; /* claim to completion of deferred requests, by class */
	uint64_t blocked[SHMURING_BUCKETS]; /* time that requests waited for conflicting ones */
};

/* Counters of a slot owner, at the place of its first slot. */
struct SHMURING_ALIGNED_(128) shmuring_owner_stats {
	uint64_t counters[8];
	uint64_t latency[SHMURING_BUCKETS]; /* sampled, submit to result */
};

/* The request bytes of a slot's first line. */
struct SHMURING_PACKED4_ shmuring_raw_request {
	uint64_t lsn;
	uint32_t spc_oid;
	uint32_t db_oid;
	uint32_t rel_number;
	uint32_t block;
	uint32_t arg; /* buffer of a one-block request; blocks of a zero_extend */
	uint8_t opcode;
	uint8_t flags;
	uint8_t fork;
	uint8_t count;
	uint16_t pool;
	uint16_t reserved;
};

/* The result bytes. */
struct SHMURING_PACKED4_ shmuring_completion {
	uint16_t error; /* 0, or a positive errno */
	uint16_t attempts;
	uint64_t value;
	uint64_t lsn;
};

/* Rare request bytes, valid by the request's flags. */
struct shmuring_raw_extra {
	uint64_t deadline; /* CLOCK_MONOTONIC, ns */
	uint64_t request_lsn;
};

/* Who owns the slot. */
struct shmuring_control {
	uint32_t life;
	uint32_t owner_first;
	uint32_t owner_count;
	uint32_t owner_pid; /* for messages only */
	struct shmuring_raw_extra extra;
};

/* Buffers and LSNs of a vectored request. */
struct shmuring_raw_vector {
	uint64_t lsns[SHMURING_MAX_BLOCKS];
	uint32_t buffers[SHMURING_MAX_BLOCKS];
};

/* A request slot. */
struct SHMURING_ALIGNED_(64) shmuring_slot {
	uint64_t word;
	struct shmuring_raw_request request;
	struct shmuring_completion result;
	struct shmuring_control control;
	uint64_t claim_seq;
	uint64_t claimed_at;
	uint64_t waiting_since;
	uint64_t orphan;
	struct shmuring_raw_vector vector;
};

/* A cell of the submission ring: lap << 24 | slot. */
struct SHMURING_ALIGNED_(64) shmuring_cell {
	uint64_t value;
};

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

SHMURING_SIZE_(shmuring_config, 120);
SHMURING_AT_(shmuring_config, abi_version, 0);
SHMURING_AT_(shmuring_config, slots, 4);
SHMURING_AT_(shmuring_config, layout_hash, 8);
SHMURING_AT_(shmuring_config, features, 16);
SHMURING_AT_(shmuring_config, total_len, 24);
SHMURING_AT_(shmuring_config, region_id, 32);
SHMURING_AT_(shmuring_config, capacity, 48);
SHMURING_AT_(shmuring_config, bounce_per_slot, 52);
SHMURING_AT_(shmuring_config, block_size, 56);
SHMURING_AT_(shmuring_config, time_namespace, 60);
SHMURING_AT_(shmuring_config, offsets, 64);
SHMURING_AT_(shmuring_config, lock_file, 112);

SHMURING_SIZE_(shmuring_alone64, 128);
SHMURING_AT_(shmuring_alone64, value, 0);

SHMURING_SIZE_(shmuring_alone32, 128);
SHMURING_AT_(shmuring_alone32, value, 0);

SHMURING_SIZE_(shmuring_role, 128);
SHMURING_AT_(shmuring_role, epoch, 0);
SHMURING_AT_(shmuring_role, pid, 4);
SHMURING_AT_(shmuring_role, claim_seq, 8);
SHMURING_AT_(shmuring_role, since, 16);
SHMURING_AT_(shmuring_role, reserved, 24);

SHMURING_SIZE_(shmuring_life, 128);
SHMURING_AT_(shmuring_life, life, 0);
SHMURING_AT_(shmuring_life, pid, 4);
SHMURING_AT_(shmuring_life, system_identifier, 8);

SHMURING_SIZE_(shmuring_pool_check, 128);
SHMURING_AT_(shmuring_pool_check, stride_and_count, 0);

SHMURING_SIZE_(shmuring_header, 1152);
SHMURING_AT_(shmuring_header, magic, 0);
SHMURING_AT_(shmuring_header, config, 8);
SHMURING_AT_(shmuring_header, tail, 128);
SHMURING_AT_(shmuring_header, head, 256);
SHMURING_AT_(shmuring_header, parked, 384);
SHMURING_AT_(shmuring_header, sequence, 512);
SHMURING_AT_(shmuring_header, any, 640);
SHMURING_AT_(shmuring_header, role, 768);
SHMURING_AT_(shmuring_header, life, 896);
SHMURING_AT_(shmuring_header, pools, 1024);

SHMURING_SIZE_(shmuring_role_stats, 1024);
SHMURING_AT_(shmuring_role_stats, counters, 0);
SHMURING_AT_(shmuring_role_stats, service, 256);
SHMURING_AT_(shmuring_role_stats, blocked, 832);

SHMURING_SIZE_(shmuring_owner_stats, 256);
SHMURING_AT_(shmuring_owner_stats, counters, 0);
SHMURING_AT_(shmuring_owner_stats, latency, 64);

SHMURING_SIZE_(shmuring_raw_request, 36);
SHMURING_AT_(shmuring_raw_request, lsn, 0);
SHMURING_AT_(shmuring_raw_request, spc_oid, 8);
SHMURING_AT_(shmuring_raw_request, db_oid, 12);
SHMURING_AT_(shmuring_raw_request, rel_number, 16);
SHMURING_AT_(shmuring_raw_request, block, 20);
SHMURING_AT_(shmuring_raw_request, arg, 24);
SHMURING_AT_(shmuring_raw_request, opcode, 28);
SHMURING_AT_(shmuring_raw_request, flags, 29);
SHMURING_AT_(shmuring_raw_request, fork, 30);
SHMURING_AT_(shmuring_raw_request, count, 31);
SHMURING_AT_(shmuring_raw_request, pool, 32);
SHMURING_AT_(shmuring_raw_request, reserved, 34);

SHMURING_SIZE_(shmuring_completion, 20);
SHMURING_AT_(shmuring_completion, error, 0);
SHMURING_AT_(shmuring_completion, attempts, 2);
SHMURING_AT_(shmuring_completion, value, 4);
SHMURING_AT_(shmuring_completion, lsn, 12);

SHMURING_SIZE_(shmuring_raw_extra, 16);
SHMURING_AT_(shmuring_raw_extra, deadline, 0);
SHMURING_AT_(shmuring_raw_extra, request_lsn, 8);

SHMURING_SIZE_(shmuring_control, 32);
SHMURING_AT_(shmuring_control, life, 0);
SHMURING_AT_(shmuring_control, owner_first, 4);
SHMURING_AT_(shmuring_control, owner_count, 8);
SHMURING_AT_(shmuring_control, owner_pid, 12);
SHMURING_AT_(shmuring_control, extra, 16);

SHMURING_SIZE_(shmuring_raw_vector, 384);
SHMURING_AT_(shmuring_raw_vector, lsns, 0);
SHMURING_AT_(shmuring_raw_vector, buffers, 256);

SHMURING_SIZE_(shmuring_slot, 512);
SHMURING_AT_(shmuring_slot, word, 0);
SHMURING_AT_(shmuring_slot, request, 8);
SHMURING_AT_(shmuring_slot, result, 44);
SHMURING_AT_(shmuring_slot, control, 64);
SHMURING_AT_(shmuring_slot, claim_seq, 96);
SHMURING_AT_(shmuring_slot, claimed_at, 104);
SHMURING_AT_(shmuring_slot, waiting_since, 112);
SHMURING_AT_(shmuring_slot, orphan, 120);
SHMURING_AT_(shmuring_slot, vector, 128);

SHMURING_SIZE_(shmuring_cell, 64);
SHMURING_AT_(shmuring_cell, value, 0);

#undef SHMURING_AT_
#undef SHMURING_SIZE_
#undef SHMURING_ASSERT_
#undef SHMURING_PACKED4_
#undef SHMURING_ALIGNED_

#ifdef __cplusplus
}
#endif

#endif /* SHMURING_H */
