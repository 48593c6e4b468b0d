/* SPDX-License-Identifier: Apache-2.0 */
/*
 * standby_read.c - reads a block by file number.
 *
 * By file number there is no relation to lock, and so ReadBuffer may not be used: a page that it brings into shared
 * buffers just after a truncation or a drop has thrown the relation's buffers away stays there, beyond the end of the
 * file, and the next extension meets it ("unexpected data beyond EOF"), which in redo ends the server. So a page that
 * lies in shared buffers is copied from there under its share lock; one that does not is read from its file into
 * private memory, while the partition of the buffer mapping that would have it is locked in share mode: nobody can
 * bring it in and write it meanwhile, so what is read is whole and the latest. Nothing is left behind, and a scan over
 * whole databases evicts nothing.
 */
#include "standby.h"

#include "catalog/pg_tablespace_d.h"
#include "miscadmin.h"
#include "storage/buf_internals.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "storage/lwlock.h"

#if PG_VERSION_NUM < 160000
#define INIT_TAG(tag, locator, fork, block) INIT_BUFFERTAG(tag, locator, fork, block)
#else
#define INIT_TAG(tag, locator, fork, block) InitBufferTag(&(tag), &(locator), fork, block)
#endif
#if PG_VERSION_NUM < 170000
#define NO_PROC InvalidBackendId
#else
#define NO_PROC INVALID_PROC_NUMBER
#endif

/* Line pointers of a damaged page may name bytes up to here, and mask functions believe them. */
#define SCRATCH_SIZE (3 * 32768)
/* What direct reads of files ask of memory, where a server makes such. */
#define SCRATCH_ALIGN 4096

/* Looks at the files anew, since they may have been dropped, and made again, by the same number. */
void
shmuring__open_fork(shmuring_fork *file, const shmuring_block *b)
{
	bool		is_global = SHMURING_SPC(b->locator) == GLOBALTABLESPACE_OID;

	file->reln = NULL;
	file->fork = b->fork;
	file->exists = false;
	if (SHMURING_REL(b->locator) == InvalidOid || (SHMURING_DB(b->locator) == InvalidOid) != is_global)
		return;
	file->reln = smgropen(b->locator, NO_PROC);
	file->exists = smgrexists(file->reln, b->fork);
}

/* Copies a page out of shared buffers; false if it is not there, or not valid. */
static bool
copy_buffered(const shmuring_block *b, int buf_id, char *to)
{
	Buffer		buffer = buf_id + 1;

	if (!ReadRecentBuffer(b->locator, b->fork, b->block, buffer))
		return false;
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	memcpy(to, BufferGetPage(buffer), BLCKSZ);
	UnlockReleaseBuffer(buffer);
	return true;
}

static bool
is_verified(char *page, BlockNumber block)
{
#if PG_VERSION_NUM < 180000
	return PageIsVerifiedExtended(page, block, PIV_LOG_WARNING | PIV_REPORT_STAT);
#else
	bool		failed;

	return PageIsVerified(page, block, PIV_LOG_WARNING, &failed);
#endif
}

/* Memory for a page, and for what mask functions may touch behind it. */
char *
shmuring__make_scratch(void)
{
	return (char *) TYPEALIGN(SCRATCH_ALIGN, palloc0(SCRATCH_SIZE + SCRATCH_ALIGN));
}

/* Reads one block into `to`, which shmuring__make_scratch has made. */
uint32
shmuring__read_block(const shmuring_fork *file, const shmuring_block *b, char *to)
{
	BufferTag	tag;
	uint32		hash;
	LWLock	   *partition;
	int			tries;

	if (!file->exists)
		return SHMURING_NO_RELATION;
	memset(&tag, 0, sizeof(tag));
	INIT_TAG(tag, b->locator, b->fork, b->block);
	hash = BufTableHashCode(&tag);
	partition = BufMappingPartitionLock(hash);
	for (tries = 0;; tries++)
	{
		int			buf_id;
		bool		is_past;

		LWLockAcquire(partition, LW_SHARED);
		buf_id = BufTableLookup(&tag, hash);
		/*
		 * Who is just reading a page in has it in the table, and is soon done. A page that could not be read in
		 * stays there, invalid: nobody can have changed it, so the file has it.
		 */
		if (buf_id >= 0 && tries < 100)
		{
			LWLockRelease(partition);
			if (copy_buffered(b, buf_id, to))
				return SHMURING_PAGE_READ;
			CHECK_FOR_INTERRUPTS();
			if (tries >= 10)
				pg_usleep(100L);
			continue;
		}
		is_past = b->block >= smgrnblocks(file->reln, b->fork);
		if (!is_past)
			smgrread(file->reln, b->fork, b->block, to);
		LWLockRelease(partition);
		if (is_past)
			return SHMURING_PAST_END;
		/* It came in meanwhile after all. */
		if (buf_id >= 0 && copy_buffered(b, buf_id, to))
			return SHMURING_PAGE_READ;
		return is_verified(to, b->block) ? SHMURING_PAGE_READ : SHMURING_DAMAGED;
	}
}
