/* SPDX-License-Identifier: Apache-2.0 */
/*
 * standby_mask.c - masks what may differ between two right copies of a page, and digests the rest.
 *
 * The access methods' own mask functions do it, those of wal_consistency_checking. They mask LSN and checksum too.
 */
#include "standby.h"

#include "access/xlog_internal.h"
#include "storage/bufpage.h"

/*
 * A digest of a page: four sums of its words side by side, each step of which is one to one in the word, so that a
 * change within one word is never missed, and any other by a chance of 2^-64. Never 0, which tells a page that is all
 * zero.
 */
uint64
shmuring__digest(const char *page)
{
	const uint64 *words = (const uint64 *) page;
	uint64		sums[4] = {1, 2, 3, 4};
	uint64		all = 0;

	for (int i = 0; i < (int) (BLCKSZ / sizeof(uint64)); i += 4)
		for (int k = 0; k < 4; k++)
		{
			sums[k] = (sums[k] ^ words[i + k]) * UINT64CONST(0x9E3779B97F4A7C15);
			sums[k] ^= sums[k] >> 29;
		}
	for (int k = 0; k < 4; k++)
	{
		all = (all ^ sums[k]) * UINT64CONST(0xBF58476D1CE4E5B9);
		all ^= all >> 32;
	}
	return all == 0 ? 1 : all;
}

bool
shmuring__is_all_zero(const char *page)
{
	return page[0] == 0 && memcmp(page, page + 1, BLCKSZ - 1) == 0;
}

/* Whose mask function a kind of relation has; "other": that of any page. */
RmgrId
shmuring__kind_of(const char *name)
{
	static const struct
	{
		const char *name;
		RmgrId		rmgr;
	}			kinds[] = {
		{"heap", RM_HEAP_ID}, {"btree", RM_BTREE_ID}, {"hash", RM_HASH_ID}, {"gist", RM_GIST_ID},
		{"gin", RM_GIN_ID}, {"spgist", RM_SPGIST_ID}, {"brin", RM_BRIN_ID}, {"sequence", RM_SEQ_ID},
		{"other", RM_GENERIC_ID}
	};

	for (int i = 0; i < (int) lengthof(kinds); i++)
		if (strcmp(kinds[i].name, name) == 0)
			return kinds[i].rmgr;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("\"%s\" is no kind of relation", name)));
	return RM_GENERIC_ID;
}

/* Whether the header is one. Mask functions raise an error where it is not. */
static bool
has_header(PageHeader header)
{
	return PageGetPageSize((Page) header) == BLCKSZ && header->pd_lower >= SizeOfPageHeaderData &&
		header->pd_lower <= header->pd_upper && header->pd_upper <= header->pd_special &&
		header->pd_special <= BLCKSZ;
}

/* Access methods look into the special space without a question. */
static bool
has_special(PageHeader header, RmgrId rmgr)
{
	return rmgr == RM_HEAP_ID || rmgr == RM_GENERIC_ID || header->pd_special + 8 <= BLCKSZ;
}

/*
 * Masks what may differ between two right copies of a page. `scratch` has SCRATCH_SIZE bytes, the page first.
 *
 * Beyond the mask function: a sequence's tuple, since the WAL has a state that is some fetches ahead; and of SP-GiST's
 * metapage everything, since its cache of pages with room is not logged.
 */
void
shmuring__mask_page(char *scratch, ForkNumber fork, BlockNumber block, RmgrId rmgr)
{
	PageHeader	header = (PageHeader) scratch;

	/* LSN and checksum. */
	memset(scratch, 0, offsetof(PageHeaderData, pd_flags));
	/* Everything else in a visibility map counts, and in what is no page. */
	if (fork != MAIN_FORKNUM || !has_header(header) || !has_special(header, rmgr))
		return;
	if (rmgr == RM_SPGIST_ID && block == 0)
	{
		memset(scratch + SizeOfPageHeaderData, 0, BLCKSZ - SizeOfPageHeaderData);
		return;
	}
	if (rmgr == RM_SEQ_ID)
		memset(scratch + header->pd_upper, 0, header->pd_special - header->pd_upper);
	GetRmgr(rmgr).rm_mask(scratch, block);
}
