/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shmuring/layout.h: what lies in a region, byte by byte. Part of shmuring.h, which includes it.
 *
 * MAINTAINERS: every size and offset repeats one of src/layout.rs and src/request.rs. ffi/src/abi.rs and the test
 * `header` compare both ways; change both sides together.
 */
#ifndef SHMURING_LAYOUT_H
#define SHMURING_LAYOUT_H

#include "types.h"

/*
 * What lies in a region, for tools and debuggers, and for whoever reads a core. A word that several processes reach is
 * to be loaded and stored atomically (__atomic_load_n and its like): C++ has no _Atomic, so the types here cannot say
 * it. Programs use the functions; nothing here needs to be written by hand.
 */

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

/* What the creator fixed about the tables behind the bounce buffers. */
struct shmuring_table_config {
	uint32_t written_buckets;
	uint32_t size_sets;
	uint64_t offsets[2]; /* the last-written table, the relation sizes */
};

/* The words that hold for all of a table. */
struct SHMURING_ALIGNED_(128) shmuring_tables {
	struct shmuring_table_config config;
	uint64_t floor;      /* no page counts as written before this LSN */
	uint64_t sizes_life; /* the server life whose relation sizes are in the cache */
};

/* What a shard of the page service is known to have ingested. */
struct shmuring_shard_mark {
	uint64_t proved;    /* the watermark; UINT64_MAX: nothing ever waits for WAL */
	uint64_t told;      /* what it is believed to have */
	uint64_t raised_at; /* when either last rose, CLOCK_MONOTONIC, ns; 0: not yet */
	uint64_t waiting;   /* reads that wait for WAL << 32 | batches of reads that were sent */
};

/* The shards of the page service, as the communicator of that epoch has told; each word stands for itself. */
struct SHMURING_ALIGNED_(128) shmuring_shards {
	uint64_t epoch;
	uint64_t count;      /* there may be more than SHMURING_MAX_SHARDS; 0: nobody has told yet */
	uint64_t stripe;     /* blocks of a stripe */
	uint64_t written_at; /* CLOCK_MONOTONIC, ns */
	struct shmuring_shard_mark marks[SHMURING_MAX_SHARDS];
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
	struct shmuring_tables tables;
	struct shmuring_shards shards;
};

/* Counters of the communicator's role. */
struct SHMURING_ALIGNED_(128) shmuring_role_stats {
	uint64_t counters[32];
	uint64_t service[3][SHMURING_BUCKETS]; /* claim to completion of deferred requests, by class */
	uint64_t blocked[SHMURING_BUCKETS]; /* time that requests waited for conflicting ones */
};

/* Counters of a slot owner, at the place of its first slot. */
struct SHMURING_ALIGNED_(128) shmuring_owner_stats {
	uint64_t counters[16];
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
	uint16_t attempts; /* how often the page service was asked; 0: caches had every page */
	uint64_t value;    /* of pages that caches had: how many lay in the prefetch buffer << 32 | blocks */
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

/* A bucket of the last-written table. */
struct SHMURING_ALIGNED_(64) shmuring_written_bucket {
	uint64_t evicted;    /* the largest LSN that has no entry any more */
	uint64_t entries[7]; /* tag << 52 | LSN / 8 */
};

/* The size of a relation fork; the communicator writes it. */
struct shmuring_size_entry {
	uint64_t stamp; /* bit 0: whole; bit 1: set by a change; from bit 8 on the version */
	uint64_t place; /* spc_oid << 32 | db_oid */
	uint64_t size;  /* rel_number << 32 | blocks; UINT32_MAX: no such relation */
	uint64_t lsn;   /* fork << 56 | LSN */
};

/* The entries that a relation fork may be in. */
struct SHMURING_ALIGNED_(128) shmuring_size_set {
	struct shmuring_size_entry entries[4];
};

/* What an earlier owner left in a slot, and what became of it: shmuring_next_leftover. Lies in no region. */
struct shmuring_leftover {
	uint32_t slot;
	uint32_t generation;
	struct shmuring_raw_request request; /* what it asked for */
	uint32_t fate;                       /* SHMURING_FATE_* */
	struct shmuring_completion result;   /* with SHMURING_FATE_COMPLETED; else 0 */
};

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

SHMURING_SIZE_(shmuring_table_config, 24);
SHMURING_AT_(shmuring_table_config, written_buckets, 0);
SHMURING_AT_(shmuring_table_config, size_sets, 4);
SHMURING_AT_(shmuring_table_config, offsets, 8);

SHMURING_SIZE_(shmuring_tables, 128);
SHMURING_AT_(shmuring_tables, config, 0);
SHMURING_AT_(shmuring_tables, floor, 24);
SHMURING_AT_(shmuring_tables, sizes_life, 32);

SHMURING_SIZE_(shmuring_shard_mark, 32);
SHMURING_AT_(shmuring_shard_mark, proved, 0);
SHMURING_AT_(shmuring_shard_mark, told, 8);
SHMURING_AT_(shmuring_shard_mark, raised_at, 16);
SHMURING_AT_(shmuring_shard_mark, waiting, 24);

SHMURING_SIZE_(shmuring_shards, 2176);
SHMURING_AT_(shmuring_shards, epoch, 0);
SHMURING_AT_(shmuring_shards, count, 8);
SHMURING_AT_(shmuring_shards, stripe, 16);
SHMURING_AT_(shmuring_shards, written_at, 24);
SHMURING_AT_(shmuring_shards, marks, 32);

SHMURING_SIZE_(shmuring_header, 3456);
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
SHMURING_AT_(shmuring_header, tables, 1152);
SHMURING_AT_(shmuring_header, shards, 1280);

SHMURING_SIZE_(shmuring_role_stats, 1024);
SHMURING_AT_(shmuring_role_stats, counters, 0);
SHMURING_AT_(shmuring_role_stats, service, 256);
SHMURING_AT_(shmuring_role_stats, blocked, 832);

SHMURING_SIZE_(shmuring_owner_stats, 384);
SHMURING_AT_(shmuring_owner_stats, counters, 0);
SHMURING_AT_(shmuring_owner_stats, latency, 128);

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

SHMURING_SIZE_(shmuring_written_bucket, 64);
SHMURING_AT_(shmuring_written_bucket, evicted, 0);
SHMURING_AT_(shmuring_written_bucket, entries, 8);

SHMURING_SIZE_(shmuring_size_entry, 32);
SHMURING_AT_(shmuring_size_entry, stamp, 0);
SHMURING_AT_(shmuring_size_entry, place, 8);
SHMURING_AT_(shmuring_size_entry, size, 16);
SHMURING_AT_(shmuring_size_entry, lsn, 24);

SHMURING_SIZE_(shmuring_size_set, 128);
SHMURING_AT_(shmuring_size_set, entries, 0);

SHMURING_SIZE_(shmuring_leftover, 68);
SHMURING_AT_(shmuring_leftover, slot, 0);
SHMURING_AT_(shmuring_leftover, generation, 4);
SHMURING_AT_(shmuring_leftover, request, 8);
SHMURING_AT_(shmuring_leftover, fate, 44);
SHMURING_AT_(shmuring_leftover, result, 48);

#endif /* SHMURING_LAYOUT_H */
