/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shmuring_ext.h: what the files of the extension share. All of it runs in processes of PostgreSQL: no threads, and no
 * frame of the library below a place that may longjmp (ereport, CHECK_FOR_INTERRUPTS).
 *
 *	shmuring.c      what PostgreSQL calls when it loads the module; the settings
 *	server.c        postmaster: the region and the life of this server
 *	communicator.c  postmaster: starts the communicator beside the server
 *	worker.c        the communicator inside the server: a background worker
 *	backend.c       a process's hold on its slots: attach at first use, leftovers, exit
 *	wait.c          waiting for an answer
 *	errors.c        errors of the library and of requests as errors of PostgreSQL
 *	pages.c         SQL: pages, prefetch, sizes
 *	compare.c       SQL: this server's pages against the page service's
 *	views.c         SQL: slots, counters
 *
 * standby*.c, with standby.h, are apart: pages by file number, without the library and the region.
 */
#ifndef SHMURING_EXT_H
#define SHMURING_EXT_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "access/rmgr.h"
#include "fmgr.h"
#include "port/atomics.h"
#include "storage/lwlock.h"
#include "utils/relcache.h"
#include "utils/timestamp.h"

#include <shmuring.h>

/* ---------------------------------------------------------------------------------- shmuring.c: the settings */

/* Values of shmuring.communicator. */
enum shx_home { SHX_BESIDE, SHX_INSIDE, SHX_EXTERNAL };
/* Values of shmuring.debug_compare_local, each with what those before it have. */
enum shx_compare { SHX_NONE, SHX_PREFETCH, SHX_LFC, SHX_ALL };

extern char *shx_region_path;        /* shmuring.region */
extern int shx_slots_per_backend;    /* shmuring.slots_per_backend */
extern int shx_bounce_per_slot;      /* shmuring.bounce_per_slot */
extern int shx_home;                 /* shmuring.communicator */
extern char *shx_communicator_path;  /* shmuring.communicator_path */
extern char *shx_communicator_log;   /* shmuring.communicator_log */
extern char *shx_page_service;       /* shmuring.page_service */
extern char *shx_serve_options;      /* shmuring.serve_options */
extern int shx_timeout;              /* shmuring.timeout, ms; 0: none */
extern int shx_compare_local;        /* shmuring.debug_compare_local */

/* ------------------------------------------------------------------------------------ server.c: the region */

/* What the extension keeps in PostgreSQL's shared memory. */
struct shx_shared {
	LWLock *lock;            /* for what follows */
	TimestampTz stats_reset; /* since when counters count */
	uint64 owner_base[16];   /* what they were then */
	uint64 role_base[32];
	pg_atomic_uint64 compared, differed; /* of debug_compare_local */
};

/* NULL where the module was not loaded by the postmaster. */
extern struct shx_shared *shx_shared;

/* Installs the hooks; in the postmaster, from _PG_init. */
void shx_server_init(void);

/* The file that the region lies in; inside: whose locks prove who lives. */
const char *shx_region_file(void);
/* The file's descriptor, inherited from the postmaster; -1 without a file that has the region. */
extern int shx_region_fd;
/* Inside: where every process of the server has the region; else NULL. */
const void *shx_region_memory(void);
/* Attaches this process to the region, with its pools, as shmuring_region_attach_memory does. */
int shx_region_attach(struct shmuring_region **out, struct shmuring_error *err);

/* Inside: the pool of PostgreSQL's shared buffers. Block i is that of buffer i + 1. */
#define SHX_SHARED_BUFFERS 1

/* -------------------------------------------------------------------------------- communicator.c: the watcher */

/* Starts a watcher with a communicator unless one that this postmaster started lives. */
void shx_watcher_start(void);
/* Whether the watcher that this postmaster started lives. */
bool shx_watcher_lives(void);
/* Tells it to end, and the communicator with it. */
void shx_watcher_stop(void);

/* ------------------------------------------------------------------------- worker.c: the communicator inside */

/* Has the postmaster start the worker; from _PG_init. */
void shx_worker_register(void);

/* ---------------------------------------------------------------------------------- backend.c: a hold on slots */

/* This process's region; attaches at the first call. An error if there is none. */
struct shmuring_region *shx_region(void);
/* This process's slots; attaches at the first call, and settles what an earlier owner left. */
struct shmuring_backend *shx_backend(void);
/* First slot of the process with this number; processes that there are. */
uint32 shx_first_slot(int process);
int shx_processes(void);
/* Logs what became of a leftover. */
void shx_log_leftover(const struct shmuring_leftover *left);

/* ------------------------------------------------------------------------------------------ wait.c: waiting */

/* Waits for the answer of `request`, which is in flight as `ref`. Whatever ends it otherwise has given it up. */
void shx_wait(struct shmuring_backend *b, shmuring_ref ref, const struct shmuring_request *request);
/* Logs that a communicator which lives is waited for, since it may copy into shared buffers. */
void shx_log_held(void);
/* A slot that can be filled, waiting for one that was cancelled or forgotten to come back. */
void shx_wait_free(struct shmuring_backend *b);
/* Starts a request, waits for it, and takes its result; returns the errno that it was answered with. */
int shx_try_call(const struct shmuring_request *request, struct shmuring_completion *done, void *page);
/* The same; an answer that is an errno is an error. */
void shx_call(const struct shmuring_request *request, struct shmuring_completion *done, void *page);

/* -------------------------------------------------------------------------------- pages.c: what the caller names */

/* The relation fork that the caller names, if its bytes are the caller's to see; an error if not. Unless NULL, *rmgr
 * becomes whose mask function its pages have. */
struct shmuring_rel shx_fork_of(Oid relid, text *fork_name, RmgrId *rmgr);
/* A block number that the caller gives; an error if it is none. */
uint32 shx_block_of(int64 block);
/* Reads a block as this server has it, shared buffers included, into memory of shmuring__make_scratch; returns what
 * became of it, an enum shmuring_status. */
uint32 shx_read_here(struct shmuring_rel rel, uint32 block, char *page);
/* Blocks of a fork here; 0 if there is none. */
int64 shx_size_here(struct shmuring_rel rel);

/* -------------------------------------------------------------------------------- compare.c: pages against ours */

/* Whose mask function a relation has. */
RmgrId shx_rmgr_of(Relation rel);
/* Compares the page that a read of a block of a main fork brought with the one here, if debug_compare_local says so. */
void shx_compare_answer(const struct shmuring_request *request, RmgrId rmgr, const struct shmuring_completion *done,
			const char *page);

/* --------------------------------------------------------------------------------------- errors.c: ereport */

/* Raises what a call of the library returned, with the library's words or its own. */
void shx_raise_call(int code, const char *text, const char *doing) __attribute__((__noreturn__));
/* Raises what a request was answered with. */
void shx_raise_result(const struct shmuring_request *request, const struct shmuring_completion *done)
	__attribute__((__noreturn__));
/* Raises that nobody answered in time. */
void shx_raise_timeout(const struct shmuring_request *request, bool is_gone) __attribute__((__noreturn__));
/* Raises that no slot of this process came back in time. */
void shx_raise_no_slot(void) __attribute__((__noreturn__));
/* Name of an operation, of a slot's state. Static. */
const char *shx_operation(uint8 opcode);
const char *shx_state(int state);
/* What a request is about: "1663/5/16384 main block 7". Palloc'd. */
char *shx_key(Oid spc, Oid db, Oid rel, uint8 fork, uint32 block, uint8 opcode, uint8 count);

#endif /* SHMURING_EXT_H */
