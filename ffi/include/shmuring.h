/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shmuring.h: the C interface of shmuring, a lock-free shared-memory I/O ring for databases that run a process per
 * connection. This is the manual of what a backend calls, and of making regions; shmuring/host.h has the communicator.
 *
 * C99, C11 or C++17, of GCC or Clang, on 64-bit little-endian Linux. Link with -lshmuring.
 *
 *	shmuring/types.h   numbers, and the structures that calls take and give
 *	shmuring/layout.h  what lies in a region, for tools and debuggers
 *	shmuring/inline.h  what is compiled into the caller: poll, state, prep
 *
 * The way of a request: attach a region, attach to a range of its slots, settle what an earlier owner left there; then
 * free_slot, prep, fill, submit, wait (or poll), page, finish; at the end detach.
 *
 * Return values. 0 or more is success, with the meaning that the function names; below 0 is an errno, negated: one of
 * SHMURING_ERR_*, or what a system call said. After an error nothing has changed, unless it says so. Nothing here
 * changes errno, ends the process, unwinds, longjmps or calls back. SHMURING_ERR_BUG is a bug of the library that was
 * caught at its edge: the handle refuses everything from then on; free it, and its slots' next owner settles what is
 * left.
 *
 * Pointers belong to the caller, and are used until the call returns and no longer, except where it is said. NULL where
 * something is needed is SHMURING_ERR_BAD_MEMORY, but for what is compiled into the caller (shmuring/inline.h), which
 * does not look; they are aligned as their types are. Handles that a call stores in *out are the library's, good until
 * the call that ends them; after that one, using them is as using freed memory. Reserved fields must be 0.
 *
 * Each function has one of these marks:
 *
 *	[pure]   any thread of any process, also in a critical section. Neither blocks nor allocates; no system call.
 *	[fast]   the thread that attached the handle. Neither blocks nor allocates, and may be called in a critical
 *	         section; the only system call is a wake-up of somebody who sleeps.
 *	[waits]  as [fast], but blocks as its shmuring_wait allows: in timed sleeps, ended by the event, the deadline, a
 *	         signal or the interrupt word. In a critical section give no interrupt word, and wait in pieces. After
 *	         a handler that was installed with SA_RESTART it is sure to end only if that has set the word.
 *	[slow]   allocates, makes system calls, may block on a file system, never on another process. Not in a critical
 *	         section and not in a signal handler.
 *
 * A handle of a region may be used by all threads of the process that made it; a handle of a backend or of a server's
 * life by the thread that made it alone (SHMURING_ERR_WRONG_THREAD). A child that inherited a handle by fork is refused
 * (SHMURING_ERR_WRONG_PROCESS); it may end the handle, which leaves the parent's as it is. Between calls a longjmp does
 * no harm, since no frame of the library is ever below one of the caller, but for signal handlers: do not leave one by
 * longjmp that interrupted a call of this library. Calls are not to be made in signal handlers, but for [pure].
 */
#ifndef SHMURING_H
#define SHMURING_H

#include "shmuring/types.h"
#include "shmuring/layout.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A region in this process. */
struct shmuring_region;
/* A hold on a range of request slots. */
struct shmuring_backend;
/* A server's hold on a region. */
struct shmuring_server;

/* --------------------------------------------------------------------------------------- Versions and errors */

/* The version of the library that was linked, as "major.minor.patch". Static; never NULL. [pure] */
const char *shmuring_version(void);

/* The same as a number that compares with SHMURING_VERSION_NUMBER. [pure] */
uint32_t shmuring_version_number(void);

/*
 * SHMURING_ABI_VERSION of the library that was linked. If it is not this header's, use neither the structures of
 * shmuring/layout.h nor any region that the library makes. [pure]
 */
uint32_t shmuring_abi_version(void);

/* SHMURING_FEATURES of the library that was linked: the features of regions that it knows. [pure] */
uint64_t shmuring_features(void);

/*
 * shmuring_check_version(SHMURING_VERSION_NUMBER, SHMURING_ABI_VERSION) - whether the library that was linked serves a
 * program that was compiled with this header. Call it once, before anything else.
 *
 * Returns 0; SHMURING_ERR_WRONG_ABI if the ABI differs, the library is older than the header, or (before version 1: of
 * another minor version; later: of another major version) makes no promise about it. [pure]
 */
int shmuring_check_version(uint32_t version_number, uint32_t abi_version);

/*
 * A sentence about `code`. Below 0: what a call of this library returned. Above 0: the errno of a result, told in the
 * words of strerror(3). 0: "success". Any int may be given; never NULL. Copy it before the thread's next call of this
 * or of strerror. [pure]
 */
const char *shmuring_strerror(int code);

/* -------------------------------------------------------------------------------------------------- Regions */

/*
 * Bytes that a region of these sizes takes, stored in *bytes.
 *
 * Returns 0; SHMURING_ERR_BAD_GEOMETRY for sizes that make no sense; SHMURING_ERR_BAD_REQUEST if a reserved field is
 * not 0. On an error *bytes is as it was. [pure]
 */
int shmuring_region_size(const struct shmuring_region_options *options, uint64_t *bytes);

/*
 * Makes a region in memory of the caller, and attaches it: the first shmuring_region_size() bytes from `base` on are
 * zeroed and initialised. `base` is aligned to 128 bytes; the memory stays mapped, shared and the library's to write
 * until the handle is detached, and nobody else uses it during this call. `lock_path` is a file whose locks prove who
 * lives; it is made, mode 0600, if it is missing, and stays as long as the region is used.
 *
 * Returns 0; SHMURING_ERR_BAD_MEMORY for memory that is misaligned or too small, SHMURING_ERR_BAD_GEOMETRY,
 * SHMURING_ERR_BAD_REQUEST, or what opening the file said. `err` may be NULL. [slow]
 */
int shmuring_region_init(void *base, size_t len, const struct shmuring_region_options *options, const char *lock_path,
			 struct shmuring_region **out, struct shmuring_error *err);

/*
 * Attaches a region that shmuring_region_init made, wherever this process has it mapped; `lock_path` leads to the very
 * file that it was made with (SHMURING_ERR_WRONG_LOCK_FILE). The memory stays mapped until the handle is detached.
 *
 * Returns 0, or why it was refused: SHMURING_ERR_WRONG_MAGIC if it is not (yet) a region, and SHMURING_ERR_* down to
 * SHMURING_ERR_BAD_MEMORY. `err` may be NULL. [slow]
 */
int shmuring_region_attach_memory(void *base, size_t len, const char *lock_path, struct shmuring_region **out,
				  struct shmuring_error *err);

/*
 * Attaches the region in the file `path`, and makes it first if there is none: of several who call at once, one makes
 * it.
 *
 * Returns 1 if this call made it, 0 if it was there; SHMURING_ERR_EXISTS if it is there with other sizes; -ENOSPC if
 * the file system is full; else as shmuring_region_attach_memory. `err` may be NULL. [slow]
 */
int shmuring_region_create(const char *path, const struct shmuring_region_options *options,
			   struct shmuring_region **out, struct shmuring_error *err);

/*
 * Makes a region in a memfd, and attaches it. It lives as long as a descriptor or a mapping of it does: hand the
 * descriptor (shmuring_region_fd) to the processes that shall attach. Returns 0 or an errno. `err` may be NULL. [slow]
 */
int shmuring_region_create_memfd(const struct shmuring_region_options *options, struct shmuring_region **out,
				 struct shmuring_error *err);

/* Attaches the region in the file `path`. Returns as shmuring_region_attach_memory, or what opening said. [slow] */
int shmuring_region_attach(const char *path, struct shmuring_region **out, struct shmuring_error *err);

/* Attaches the region behind a descriptor, which is opened once more and stays the caller's. As above. [slow] */
int shmuring_region_attach_fd(int fd, struct shmuring_region **out, struct shmuring_error *err);

/* Maps the region in the file `path` for reading: for statistics alone, any other use is -EROFS. As above. [slow] */
int shmuring_region_observe(const char *path, struct shmuring_region **out, struct shmuring_error *err);

/* The library's descriptor of a named region or a memfd, closed on exec; -ENOENT for memory of the caller. [pure] */
int shmuring_region_fd(const struct shmuring_region *region);

/*
 * Tells the sizes of a region, which life it serves and whether a communicator lives, in *info. Returns 0. Neither
 * blocks nor allocates; one system call; any thread.
 */
int shmuring_region_info(const struct shmuring_region *region, struct shmuring_region_info *info);

/*
 * Registers pool `pool` (1 to 15) of this process: `count` blocks, `stride` bytes apart, the first at `base`; each
 * process does so for itself, before it attaches backends or takes the role of communicator: what names a pool that the
 * communicator has not registered is answered with EINVAL. The memory stays mapped until the region is detached, and a
 * block that a request names is not touched from submit to finish or cancel.
 *
 * Returns 0; SHMURING_ERR_BAD_POOL if the number is taken, the sizes make no sense, or another process registered it
 * otherwise; SHMURING_ERR_IN_USE while backends are attached. `err` may be NULL. No other thread uses the handle
 * meanwhile. Neither blocks nor allocates.
 */
int shmuring_region_register_pool(struct shmuring_region *region, uint16_t pool, void *base, size_t stride,
				  uint32_t count, struct shmuring_error *err);

/*
 * Ends the handle. The region and its requests stay; a mapping of the library's is undone, memory of the caller is not
 * touched. Returns 0; SHMURING_ERR_IN_USE while backends or servers that came by this handle are not freed. NULL is
 * fine. Frees, and makes system calls; also in a forked child.
 */
int shmuring_region_detach(struct shmuring_region *region);

/* Removes the name of a region; who is attached stays so. Returns 0 or what unlink(2) said. [slow] */
int shmuring_region_unlink(const char *path);

/* -------------------------------------------------------------------------------------------- Life of a server */

/*
 * Begins a new life of the server with this system identifier: call it when the server starts, before any backend
 * attaches, and keep the handle as long as the server lives. Requests of older lives are claimed no more.
 *
 * Returns the number of the life, above 0, modulo 2^31; SHMURING_ERR_LIFE_HELD while another server lives. `err` may be
 * NULL. [slow]
 */
int shmuring_server_begin(struct shmuring_region *region, uint64_t system_identifier, struct shmuring_server **out,
			  struct shmuring_error *err);

/*
 * Settles every slot of older lives; call it next, before redo or anything else makes a request. Reads, and mutations
 * that nobody claimed, are withdrawn, claimed mutations are waited for.
 *
 * Returns how many there were. SHMURING_ERR_OWNER_ALIVE while a process of an older life still holds slots. After
 * SHMURING_ERR_TIMED_OUT, _INTERRUPTED or _COMMUNICATOR_GONE log it and call again. Blocks as `wait` allows; allocates.
 */
int shmuring_server_settle(struct shmuring_server *server, const struct shmuring_wait *wait);

/*
 * The same one by one, for who logs each: settles the next slot of older lives, and tells of it in *out. It holds every
 * slot of the region until it returns 0.
 *
 * Returns 1 with a leftover in *out, 0 when there are no more; errors as shmuring_server_settle. Blocks as `wait`
 * allows; allocates.
 */
int shmuring_server_next_leftover(struct shmuring_server *server, const struct shmuring_wait *wait,
				  struct shmuring_leftover *out);

/*
 * Forgets what older lives noted in the last-written table, and starts it anew from `floor`: the redo LSN, since redo
 * touches and notes every page that was changed after it. Call it after shmuring_server_settle, before redo or anything
 * else makes a request. If a life that ended has run redo, raise the floor to the end of recovery with
 * shmuring_written_note_all.
 *
 * Returns 0. Neither blocks nor allocates; it writes the whole table. The thread that began the life.
 */
int shmuring_server_reset_written(struct shmuring_server *server, uint64_t floor);

/*
 * Ends the life and the handle, as the death of the process would. Returns 0. NULL is fine. Frees, and makes system
 * calls; also in a forked child.
 */
int shmuring_server_end(struct shmuring_server *server);

/* -------------------------------------------------------------------------------------------------- Backends */

/*
 * Attaches to slots `first` to `first + count - 1`: which backend has which is the embedder's to say. The region handle
 * outlives the backend. Then call shmuring_next_leftover until it returns 0.
 *
 * Returns the number of slots that can be used at once; SHMURING_ERR_BAD_SLOT for a range outside the region;
 * SHMURING_ERR_OWNER_ALIVE while another living process holds one of them; -ENOMEM. `err` may be NULL. [slow]: some 150
 * bytes a slot are allocated here, and none later.
 */
int shmuring_backend_attach(struct shmuring_region *region, uint32_t first, uint32_t count,
			    struct shmuring_backend **out, struct shmuring_error *err);

/* Bytes that shmuring_backend_attach_in wants for `count` slots, stored in *bytes. Returns 0; _BAD_SLOT. [pure] */
int shmuring_backend_memory(const struct shmuring_region *region, uint32_t count, size_t *bytes);

/*
 * As shmuring_backend_attach, with all that the handle keeps in `memory` (a memory context of PostgreSQL, say): `len`
 * bytes, aligned to 8, at least as many as shmuring_backend_memory says, else SHMURING_ERR_BAD_MEMORY. They stay as
 * they are until shmuring_backend_free, which does not free them; after that they are the caller's again. What the
 * handle has beside them is a descriptor, and a page of its own. [slow]: a path is allocated, and freed before the
 * return.
 */
int shmuring_backend_attach_in(struct shmuring_region *region, uint32_t first, uint32_t count, void *memory, size_t len,
			       struct shmuring_backend **out, struct shmuring_error *err);

/* As above, to `count` slots that nobody holds, searched from the end of the region: for tools. [slow] */
int shmuring_backend_attach_any(struct shmuring_region *region, uint32_t count, struct shmuring_backend **out,
				struct shmuring_error *err);

/* Slots of the range that could be filled now: that no request, and no unfinished cancel, holds. [fast] */
int shmuring_backend_usable(struct shmuring_backend *b);

/*
 * Settles the next request that an earlier owner of the range left unfinished, and tells of it in *out. Reads are given
 * up at once; mutations that must not be lost are waited for.
 *
 * Returns 1 with a leftover in *out, 0 when there are no more. After SHMURING_ERR_TIMED_OUT, _INTERRUPTED or
 * _COMMUNICATOR_GONE call it again. [waits]
 */
int shmuring_next_leftover(struct shmuring_backend *b, const struct shmuring_wait *wait, struct shmuring_leftover *out);

/*
 * Settles what this handle has in flight and gives its slots up; then free the handle. Before a clean exit.
 *
 * Returns how many requests were settled. After SHMURING_ERR_TIMED_OUT, _INTERRUPTED or _COMMUNICATOR_GONE nothing is
 * given up: call it again, or leave the rest to the next owner. [waits]; frees.
 */
int shmuring_backend_detach(struct shmuring_backend *b, const struct shmuring_wait *wait);

/*
 * Frees the handle, also one that was not detached: that gives the slots up as the death of the process would, and is
 * what a forked child does with what it inherited. Returns 0. NULL is fine. Frees, and makes system calls.
 */
int shmuring_backend_free(struct shmuring_backend *b);

/* ---------------------------------------------------------------------------------------------------- Requests */

/* Now, plus so many ms: for shmuring_wait.until and deadlines. Any thread; CLOCK_MONOTONIC is read without a call. */
uint64_t shmuring_deadline_ms(uint64_t ms);

/*
 * A slot of the range that can be filled; the one finished last. It is not reserved: fill it next.
 *
 * Returns its number; SHMURING_ERR_NO_FREE_SLOT if there is none: finish a request, or shmuring_wait_free. [fast]
 */
int shmuring_free_slot(struct shmuring_backend *b);

/* As shmuring_free_slot, but waits for a cancelled or forgotten slot to come back if there is none but such. [waits] */
int shmuring_wait_free(struct shmuring_backend *b, const struct shmuring_wait *wait);

/*
 * Writes a request into `slot`, and picks its bounce buffers. Images are copied now; `block_lsns` and `buffers` too.
 *
 * Returns a reference; submit it next (or cancel it). SHMURING_ERR_BAD_SLOT, _SLOT_BUSY, _NO_FREE_BUFFER (finish or
 * cancel a request first), _BAD_POOL, _BAD_BUFFER, _BAD_COUNT, _BAD_OPCODE, _BAD_REQUEST. [fast]
 */
shmuring_ref shmuring_fill(struct shmuring_backend *b, uint32_t slot, const struct shmuring_request *request);

/*
 * The same for the commonest request, in a third of the time: one block into a bounce buffer, of class demand, not
 * modified since `lsn`. As shmuring_prep_get_page and shmuring_fill. [fast]
 */
shmuring_ref shmuring_fill_get_page(struct shmuring_backend *b, uint32_t slot, struct shmuring_rel rel, uint32_t block,
				    uint64_t lsn);

/*
 * Hands a filled slot to the communicator. It cannot fail for want of room, and makes a system call only if the
 * communicator sleeps.
 *
 * Returns 0; SHMURING_ERR_NOT_FILLING or _STALE if there is nothing to submit. Next: wait, or poll. [fast]
 */
int shmuring_submit(struct shmuring_backend *b, shmuring_ref ref);

/*
 * A free slot, fill and submit in one, where an error leaves no trace. Returns as they do. [fast]
 */
shmuring_ref shmuring_start(struct shmuring_backend *b, const struct shmuring_request *request);

/* The same for the request of shmuring_fill_get_page: the shortest way to a page. [fast] */
shmuring_ref shmuring_start_get_page(struct shmuring_backend *b, struct shmuring_rel rel, uint32_t block, uint64_t lsn);

/*
 * As shmuring_submit for `n` references, with one wake-up for all. Returns 0; if one of them cannot be submitted, or is
 * named twice, none is. [fast]
 */
int shmuring_submit_many(struct shmuring_backend *b, const shmuring_ref *refs, size_t n);

/*
 * Waits until the request is complete.
 *
 * Returns 0: finish it. SHMURING_ERR_TIMED_OUT, _COMMUNICATOR_GONE (as that, and nobody serves), _INTERRUPTED (a
 * signal, or the interrupt word): the request stands, wait again or cancel it. SHMURING_ERR_STALE; _NOT_COMPLETED if it
 * was not submitted. [waits]
 */
int shmuring_wait(struct shmuring_backend *b, shmuring_ref ref, const struct shmuring_wait *wait);

/*
 * Waits until one of `n` requests is complete, at most SHMURING_MAX_WAIT_ANY. Returns the index of one that is; errors
 * as shmuring_wait, SHMURING_ERR_BAD_COUNT for none, SHMURING_ERR_TOO_MANY. [waits]
 */
int shmuring_wait_any(struct shmuring_backend *b, const shmuring_ref *refs, size_t n, const struct shmuring_wait *wait);

/* Copies the result of a complete request to *out, and leaves it as it is. 0; _NOT_COMPLETED; _STALE. [fast] */
int shmuring_result(struct shmuring_backend *b, shmuring_ref ref, struct shmuring_completion *out);

/*
 * Address of page `i` of a complete read that went to bounce buffers, stored in *page: one block, readable until the
 * request is finished. Returns 0; SHMURING_ERR_BAD_BUFFER if it has no such page, or failed (shmuring_result tells the
 * errno); _NOT_COMPLETED; _STALE. [fast]
 */
int shmuring_page(struct shmuring_backend *b, shmuring_ref ref, uint32_t i, const void **page);

/*
 * Takes the result of a complete request, into *out unless that is NULL, and gives the slot back: the reference is
 * stale, its pages are gone.
 *
 * Returns 0, whatever the result: what went wrong, if anything, is the errno in out->error. _NOT_COMPLETED: wait;
 * _STALE. [fast]
 */
int shmuring_finish(struct shmuring_backend *b, shmuring_ref ref, struct shmuring_completion *out);

/*
 * Gives a request up. With bounce buffers it does not wait; with a registered pool it waits, as `wait` allows, until no
 * byte of the buffers can be written any more.
 *
 * Returns SHMURING_CANCEL_*: the reference is stale; the slot comes back when the communicator says so. SHMURING_ERR_
 * ALREADY_COMPLETED: finish it. _IN_PROGRESS: a claimed mutation runs to its end, wait for it. _TIMED_OUT,
 * _INTERRUPTED: buffers may still be written, the request stands. _STALE. [waits]
 */
int shmuring_cancel(struct shmuring_backend *b, shmuring_ref ref, const struct shmuring_wait *wait);

/*
 * Gives up the answer of a submitted request that cannot be cancelled: it runs to its end, and a later
 * shmuring_free_slot or shmuring_wait_free takes its slot back. The reference stays good until then.
 *
 * Returns 0; SHMURING_ERR_NOT_FILLING for what was not submitted, _STALE for what is over. [fast]
 */
int shmuring_forget(struct shmuring_backend *b, shmuring_ref ref);

/*
 * One request from free_slot to finish. The pages of a read are copied to `to`, as many whole blocks as `len` holds; it
 * may be NULL with `len` 0.
 *
 * Returns as the calls that it is made of; the result is in *out. If the wait fails, a read is cancelled; a mutation
 * that cannot be is forgotten: whether it is done is not known. [waits]
 */
int shmuring_call(struct shmuring_backend *b, const struct shmuring_request *request, const struct shmuring_wait *wait,
		  void *to, size_t len, struct shmuring_completion *out);

/* ---------------------------------------------------------------------- Last-written LSNs and relation sizes */

/*
 * The last-written table tells since when something was certainly not modified, which is what a read gives as its `lsn`
 * (not_modified_since). Its answers are never lower than the truth if you keep this order: note the LSN of a page's
 * image (of one without an LSN: the insert position) before its write is submitted; let the page leave your caches
 * after that. Whoever misses the page there then sees the note. Keys that were written lately are answered with their
 * LSN, rounded up to a multiple of 8 (as LSNs of PostgreSQL's records are), others as late as the newest that found no
 * room beside them.
 *
 * All of these take a region's handle, also one that was inherited by fork. They return 0; SHMURING_ERR_BAD_REQUEST for
 * a fork above 3 or a reserved byte that is not 0, SHMURING_ERR_BAD_COUNT for blocks beyond 2^32 - 2; notes -EROFS by a
 * handle of shmuring_region_observe. After an error nothing is noted, or stored. [pure], in bounded time.
 */

/* Notes that a block is written with page LSN `lsn`. */
int shmuring_written_note(const struct shmuring_region *region, struct shmuring_rel rel, uint32_t block, uint64_t lsn);

/*
 * The same for `count` blocks from `first` on, none with a larger LSN. More than 8 are noted as whole chunks of 128
 * blocks, more than 64 chunks by raising the floor.
 */
int shmuring_written_note_range(const struct shmuring_region *region, struct shmuring_rel rel, uint32_t first,
				uint32_t count, uint64_t lsn);

/* Notes a change of a fork's size or existence (create, extend, truncate, unlink), for its database as well. */
int shmuring_written_note_relation(const struct shmuring_region *region, struct shmuring_rel rel, uint64_t lsn);

/* Notes that anything may have changed, such as a whole database: raises the floor, and so every answer. */
int shmuring_written_note_all(const struct shmuring_region *region, uint64_t lsn);

/* Stores in *lsn since when a block was not modified. */
int shmuring_written_get(const struct shmuring_region *region, struct shmuring_rel rel, uint32_t block, uint64_t *lsn);

/* The same for `count` blocks from `first` on, into the array `lsns`: as shmuring_set_block_lsns takes it. */
int shmuring_written_get_range(const struct shmuring_region *region, struct shmuring_rel rel, uint32_t first,
			       uint32_t count, uint64_t *lsns);

/* Stores in *lsn since when neither the fork's size nor its existence changed: for rel_size and rel_exists. */
int shmuring_written_get_relation(const struct shmuring_region *region, struct shmuring_rel rel, uint64_t *lsn);

/* Stores in *lsn since when no fork of the database changed its size or existence: for db_size. */
int shmuring_written_get_database(const struct shmuring_region *region, uint32_t db_oid, uint64_t *lsn);

/* Stores in *lsn what no answer is below. shmuring_server_reset_written sets it; it only grows from then on. */
int shmuring_written_floor(const struct shmuring_region *region, uint64_t *lsn);

/*
 * The size of a relation fork, if the region knows it: that after every change that completed before the call. The
 * communicator keeps it, one of your own by shmuring_communicator_keep_sizes; nobody else can.
 *
 * Returns 1 with the size in *out; 0 if it is not known, or just being changed: ask with shmuring_prep_rel_size.
 * SHMURING_ERR_BAD_REQUEST as above. [fast], without a system call.
 */
int shmuring_cached_rel_size(struct shmuring_backend *b, struct shmuring_rel rel, struct shmuring_rel_size *out);

/* -------------------------------------------------------------------------------------------------- Statistics */

/*
 * Counters of whoever owns, or owned, the range that begins at slot `first`; of the communicators. Copied to *out one
 * by one. Returns 0; SHMURING_ERR_BAD_SLOT. [fast], but for any thread.
 */
int shmuring_owner_statistics(const struct shmuring_region *region, uint32_t first, struct shmuring_owner_stats *out);
int shmuring_role_statistics(const struct shmuring_region *region, struct shmuring_role_stats *out);

/*
 * Which shard of the page service has a block, from 0 on: where struct shmuring_shards tells how far it is. 0 where no
 * communicator has told. SHMURING_ERR_BAD_REQUEST for a fork above 3 or a reserved byte that is not 0. [pure]
 */
int shmuring_shard_of(const struct shmuring_region *region, struct shmuring_rel rel, uint32_t block);

#ifdef __cplusplus
}
#endif

#include "shmuring/inline.h"

#endif /* SHMURING_H */
