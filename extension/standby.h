/* SPDX-License-Identifier: Apache-2.0 */
/*
 * standby.h - what the files of this server as a source of pages share; standby.c says what it is.
 *
 * standby_read.c reads a block by file number, standby_mask.c masks a page and digests it, standby.c has the functions
 * that SQL calls.
 */
#ifndef SHMURING_STANDBY_H
#define SHMURING_STANDBY_H

#include "postgres.h"

#include "access/rmgr.h"
#include "access/xlogdefs.h"
#include "storage/smgr.h"

/* File numbers: 15 has another name for them. */
#if PG_VERSION_NUM < 160000
typedef RelFileNode shmuring_locator;
#define SHMURING_LOCATOR(s, d, r) {.spcNode = (s), .dbNode = (d), .relNode = (r)}
#define SHMURING_SPC(locator) ((locator).spcNode)
#define SHMURING_DB(locator) ((locator).dbNode)
#define SHMURING_REL(locator) ((locator).relNode)
#else
typedef RelFileLocator shmuring_locator;
#define SHMURING_LOCATOR(s, d, r) {.spcOid = (s), .dbOid = (d), .relNumber = (r)}
#define SHMURING_SPC(locator) ((locator).spcOid)
#define SHMURING_DB(locator) ((locator).dbOid)
#define SHMURING_REL(locator) ((locator).relNumber)
#endif

/* What became of a block; the numbers are in answers. */
enum shmuring_status
{
	SHMURING_PAGE_READ = 0,
	SHMURING_NO_RELATION = 1,
	SHMURING_PAST_END = 2,
	SHMURING_DAMAGED = 3,
	SHMURING_NOT_YET = 4
};

/* A block of a fork. */
typedef struct
{
	shmuring_locator locator;
	ForkNumber	fork;
	BlockNumber block;
} shmuring_block;

/* A fork whose files were looked at for this call. */
typedef struct
{
	SMgrRelation reln;
	ForkNumber	fork;
	bool		exists;
} shmuring_fork;

/* standby.c */
extern XLogRecPtr shmuring__flush_all(void);
extern XLogRecPtr shmuring__newest(void);

/* standby_read.c */
extern void shmuring__open_fork(shmuring_fork *file, const shmuring_block *b);
extern char *shmuring__make_scratch(void);
extern uint32 shmuring__read_block(const shmuring_fork *file, const shmuring_block *b, char *to);

/* standby_mask.c */
extern RmgrId shmuring__kind_of(const char *name);
extern void shmuring__mask_page(char *scratch, ForkNumber fork, BlockNumber block, RmgrId rmgr);
extern uint64 shmuring__digest(const char *page);
extern bool shmuring__is_all_zero(const char *page);

#endif
