/*
 * Description: a shared library that contains libshmuring.a, as an extension of PostgreSQL would, and exports two
 * functions of its own.
 */
#include <shmuring/host.h>

#include "extension.h"

const char *extension_version(void)
{
	return shmuring_version();
}

/* Serves `requests` reads of the region: every byte of a page is its block number. */
int extension_serve(const char *path, int requests)
{
	static char page[SHMURING_DEFAULT_BLOCK_SIZE];
	struct shmuring_region *region;
	struct shmuring_communicator *c;
	struct shmuring_claim claim;
	int served = 0;

	if (shmuring_region_attach(path, &region, NULL) < 0 || shmuring_communicator_take_role(region, &c, NULL) < 0)
		return -1;
	while (served < requests) {
		int n = shmuring_communicator_reap_or_park(c, SHMURING_STATE_COPYING, &claim, 1, 100000000);
		size_t i;

		if (n < 0)
			return n;
		if (n == 0)
			continue;
		for (i = 0; i < sizeof(page); i++)
			page[i] = (char)claim.block;
		if (shmuring_claim_deliver(c, claim.ref, 0, page, sizeof(page)) == 0 &&
		    shmuring_claim_complete(c, claim.ref, 1, 0) == 0)
			served++;
	}
	return shmuring_communicator_release_role(c) + shmuring_region_detach(region);
}
